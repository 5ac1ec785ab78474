//! The one error of this crate: what failed, on which object, and the kernel's answer.

use nix::errno::Errno;

/// `unshare user namespace: EPERM: Operation not permitted`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {source}")]
pub struct Error {
    /// What was attempted and on which object: `add address 203.0.113.7/24 to lo`.
    pub action: String,
    #[source]
    pub source: Errno,
}

pub type Result<T> = std::result::Result<T, Error>;

/// Names the attempt a failed system call belonged to.
pub(crate) trait Context<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error { action: action(), source })
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error { action: action(), source: Errno::from_raw(error.raw_os_error().unwrap_or(0)) })
    }
}
