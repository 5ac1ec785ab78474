//! Starting the first process of new namespaces: `clone` into them, talk over a socket, die together.
use crate::error::Result;
use nix::sys::wait::WaitStatus;
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

/// Which namespaces the new process is the first of. Network, mount and PID always; user only where asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces {
    /// `Some(ids)`: also a user namespace in which exactly these ids stand for themselves (user_namespaces(7)). `None`: needs CAP_SYS_ADMIN.
    pub user: Option<Ids>,
}

/// The invoking process's effective ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
}

/// One end of a SOCK_SEQPACKET pair that carries whole messages with file descriptors (unix(7), SCM_RIGHTS).
pub struct Channel(OwnedFd);

/// The first process (PID 1 inside) of the new namespaces. Dropping it kills it, and the kernel everything inside with it.
pub struct Child {
    pub channel: Channel,
}

impl Channel {
    /// Sends one message, at most 64 KiB, with any number of fds up to 16. EPIPE when the other side is gone.
    pub fn send(&self, _bytes: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        todo!()
    }
    /// The next message; `None` when the other side is gone.
    pub fn recv(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        todo!()
    }
}

impl Child {
    /// Outside pid.
    pub fn pid(&self) -> nix::unistd::Pid {
        todo!()
    }
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        todo!()
    }
    pub fn kill(&self, _signal: nix::sys::signal::Signal) -> Result<()> {
        todo!()
    }
    /// Waits for the end and reaps.
    pub fn wait(self) -> Result<WaitStatus> {
        todo!()
    }
}

/// Clones the calling (single-threaded) process into new namespaces. In the child, maps are written and `init` runs with every capability over
/// the new namespaces; what it returns is the exit status, a panic is status 101. The child's end of the channel is CLOEXEC.
/// Errors if the process has more than one thread.
pub fn spawn(_namespaces: Namespaces, _init: impl FnOnce(Channel) -> u8) -> Result<Child> {
    todo!()
}
