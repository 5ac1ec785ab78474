//! A network namespace held by a file descriptor.

use crate::{
    error::{Context, Result},
    link,
};
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::Pid,
};
use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

/// A network namespace, alive as long as this handle (nsfs, namespaces(7)). It has no name anywhere.
#[derive(Debug)]
pub struct NetNs(OwnedFd);

impl NetNs {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace of another process. Needs the right to trace it (ptrace(2), PTRACE_MODE_READ_FSCREDS).
    pub fn of(pid: Pid) -> Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// A new, empty one whose `lo` is up; the calling thread stays where it is. Needs CAP_SYS_ADMIN.
    pub fn new() -> Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).context(|| "unshare network namespace".into())?;
            link::up("lo")?;
            Self::current()
        };
        // A thread of its own: namespaces belong to threads, and one that ends need not be brought back.
        let thread = thread::Builder::new().name("netns".into()).spawn(make).context(|| "start a thread".into())?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `f` with the calling thread inside; the thread is back where it was on return and on unwind. Needs CAP_SYS_ADMIN over both namespaces.
    ///
    /// A socket belongs for ever to the namespace it was made in, so what `f` returns keeps working outside. Threads that `f` starts stay inside.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        let _back = Return(Self::current()?);
        self.enter()?;
        Ok(f())
    }

    fn open(path: &Path) -> Result<Self> {
        File::open(path).map(|file| Self(file.into())).context(|| format!("open {}", path.display()))
    }

    fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).context(|| "enter network namespace".into())
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Brings the thread back when dropped.
struct Return(NetNs);

impl Drop for Return {
    fn drop(&mut self) {
        if self.0.enter().is_err() {
            // Going on in the wrong namespace would open sockets on the wrong network.
            std::process::abort();
        }
    }
}
