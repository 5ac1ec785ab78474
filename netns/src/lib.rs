#![doc = include_str!("../README.md")]

#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod sys;

#[cfg(target_os = "linux")]
pub mod keyring;
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
pub mod sock_diag;
#[cfg(target_os = "linux")]
pub mod spawn;
#[cfg(target_os = "linux")]
pub mod uplink;
#[cfg(target_os = "linux")]
pub mod userns;

#[cfg(all(target_os = "linux", feature = "testing"))]
pub mod testing;

#[cfg(all(target_os = "linux", fuzzing))]
pub mod fuzz;

#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "whatever fails with it is Linux's"))]
mod error;
mod gate;

pub use error::Error;
pub use gate::{Cause, Gate};
#[cfg(target_os = "linux")]
pub use {
    namespace::NetNs,
    orig_dst::{OrigDst, orig_dst},
};

/// Overwrites the values of variables where the kernel put them at the start of the program; a copy of a process has them, too. Errors if the
/// process has more than one thread.
#[cfg(target_os = "linux")]
pub fn wipe_variables(names: impl IntoIterator<Item = std::ffi::CString>) -> error::Result<()> {
    spawn::require_one_thread().map_err(Error::from)?;
    names.into_iter().for_each(|name| sys::wipe_variable(&name));
    Ok(())
}

/// Every descriptor from `first` on will not survive the next exec of this process or its children (close_range(2)).
#[cfg(target_os = "linux")]
pub fn close_on_exec_from(first: u32) -> error::Result<()> {
    use error::Context;
    sys::close_on_exec_from(first).context(|| format!("close descriptors from {first} on exec"))
}
