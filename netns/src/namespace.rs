//! A network namespace held by a file descriptor.
use crate::error::Result;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A network namespace, alive as long as this handle (nsfs, namespaces(7)). It has no name anywhere.
pub struct NetNs(OwnedFd);

impl NetNs {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        todo!()
    }
    /// A new, empty one whose `lo` is up; the calling thread stays where it is. Needs CAP_SYS_ADMIN.
    pub fn new() -> Result<Self> {
        todo!()
    }
    /// Runs `f` with the calling thread inside; the thread is back where it was on return and on unwind.
    pub fn run<T>(&self, _f: impl FnOnce() -> T) -> Result<T> {
        todo!()
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
