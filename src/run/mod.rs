//! One run of a program: what is prepared, started, served and undone, in that order.
#[cfg(target_os = "linux")]
pub mod harden;
#[cfg(target_os = "linux")]
pub mod mask;
#[cfg(target_os = "linux")]
pub mod trust;
