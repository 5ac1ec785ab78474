//! authsome runs a program so that its API calls carry your keys while the program itself never holds one.
//!
//! The rooms, in the order a connection meets them; each imports only what stands below it.

pub mod cli;
pub mod demo;
pub mod run;

pub mod proxy;

pub mod audit;
pub mod credential;
pub mod dns;
pub mod route;
pub mod upstream;

pub mod config;
pub mod login;
pub mod provider;
pub mod trust_store;
pub mod vault;

pub mod certificate;
pub mod defence;
pub mod host;
pub mod secret;

#[cfg(all(fuzzing, target_os = "linux"))]
pub mod fuzz;
