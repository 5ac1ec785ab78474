//! The system calls that no safe wrapper exists for; the only `unsafe` of this crate.
#![allow(unsafe_code)]

use nix::{
    cmsg_space,
    errno::Errno,
    sched::CloneFlags,
    sys::{
        signal::Signal,
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
    },
    unistd::Pid,
};
use std::{
    ffi::CStr,
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    process::Child,
    ptr,
};

/// Most descriptors the kernel puts into one message (SCM_MAX_FD, unix(7)). Room for all of them means that a control message is never cut,
/// which would leave descriptors open that nobody owns.
const SCM_MAX_FD: usize = 253;

/// Which side of [`fork_into`] this is.
pub(crate) enum Fork {
    Parent { pid: Pid, pidfd: OwnedFd },
    Child,
}

/// fork(2) into new namespaces, with a pidfd that cannot be confused with a later process of the same number.
///
/// clone(2) and not clone3(2): container runtimes answer ENOSYS to clone3, whose flags their seccomp filters cannot read.
/// The caller has made sure that there is one thread only: any other could hold a lock that the copy would wait for forever.
pub(crate) fn fork_into(namespaces: CloneFlags) -> nix::Result<Fork> {
    let flags = libc::c_long::from(namespaces.bits() | libc::CLONE_PIDFD | Signal::SIGCHLD as i32);
    let mut pidfd: RawFd = -1;
    // SAFETY: no CLONE_VM and a null stack make this a fork: the child runs on its own copy of this stack. With one thread no lock is held
    // across the call. The kernel writes the pidfd to `pidfd`, which lives through it. The order of flags, stack and parent_tid is that of
    // every architecture but s390; the last two, whose order differs, are both unused.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, &raw mut pidfd, 0_usize, 0_usize) };
    match Errno::result(pid)? {
        0 => Ok(Fork::Child),
        // SAFETY: the call succeeded in the parent, so `pidfd` is a new descriptor that nothing else owns.
        pid => Ok(Fork::Parent { pid: Pid::from_raw(pid as libc::pid_t), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Ends this process without running exit handlers, which belong to the process it was forked from.
pub(crate) fn exit_now(status: u8) -> ! {
    // SAFETY: _exit takes no pointer and does not return.
    unsafe { libc::_exit(i32::from(status)) }
}

/// A pidfd of a child that has not been waited for, closed by exec (pidfd_open(2)): its number cannot mean another process yet.
pub(crate) fn pidfd_open(child: &Child) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two integers.
    let pidfd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) })?;
    // SAFETY: the call succeeded, so this is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd as RawFd) })
}

/// Sends `signal` to the process behind `pidfd`; ESRCH when it has been reaped (pidfd_send_signal(2)).
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks for the same as kill(2); the descriptor is borrowed for the call.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, no_info, 0) };
    Errno::result(result).map(drop)
}

/// recvmsg(2) whose descriptors are owned, and closed by exec. Returns the length, the flags of the message and the descriptors.
pub(crate) fn recv_with_fds(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: MsgFlags) -> nix::Result<(usize, MsgFlags, Vec<OwnedFd>)> {
    let mut control = cmsg_space!([RawFd; SCM_MAX_FD]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags | MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just installed these descriptors for this message; each is taken once.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, message.flags, fds))
}

/// KEYCTL_JOIN_SESSION_KEYRING (keyctl(2), include/uapi/linux/keyctl.h) with a null name: a new, anonymous keyring.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the arguments are a command number and a null pointer, which this command takes for "no name".
    match unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Overwrites the value of `name` in the environment that this process was started with, which its memory and /proc/PID/environ show. For a
/// process with one thread: nobody else may be reading it.
pub(crate) fn wipe_variable(name: &CStr) {
    // SAFETY: getenv's answer is null or a NUL-terminated string in this process's own writable memory (environ(7)), and no other thread uses it.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        if !value.is_null() {
            ptr::write_bytes(value, b'x', libc::strlen(value));
        }
    }
}

/// Marks every descriptor from `first` on to be closed by exec (close_range(2), Linux 5.11).
pub(crate) fn close_on_exec_from(first: u32) -> nix::Result<()> {
    // SAFETY: nothing is closed now; the call takes three integers.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}
