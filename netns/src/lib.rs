#![doc = include_str!("../README.md")]

#[cfg(target_os = "linux")]
mod sys;

#[cfg(target_os = "linux")]
pub mod link;
#[cfg(target_os = "linux")]
pub mod namespace;
#[cfg(target_os = "linux")]
pub mod nft;
#[cfg(target_os = "linux")]
pub mod orig_dst;
#[cfg(target_os = "linux")]
pub mod ruleset;
#[cfg(target_os = "linux")]
pub mod spawn;
#[cfg(target_os = "linux")]
pub mod uplink;
#[cfg(target_os = "linux")]
pub mod userns;

#[cfg(all(target_os = "linux", feature = "testing"))]
pub mod testing;

mod error;

pub use error::Error;
#[cfg(target_os = "linux")]
pub use {
    namespace::NetNs,
    orig_dst::{OrigDst, orig_dst},
};
