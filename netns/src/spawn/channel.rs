//! Whole messages with file descriptors, between the two sides of a clone.

use crate::{
    error::{Context, Result},
    sys,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, sendmsg, shutdown, socketpair},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

/// Longest message of a [`Channel`], in bytes. Well below what the kernel queues by default (net.core.wmem_default, 212992).
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Most file descriptors that one message of a [`Channel`] carries.
pub const MAX_FDS: usize = 16;

/// One end of a SOCK_SEQPACKET pair that carries whole messages with file descriptors (unix(7), SCM_RIGHTS).
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two connected ends, both CLOEXEC.
    pub fn pair() -> Result<(Self, Self)> {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map(|(one, other)| (Self(one), Self(other)))
            .context(|| "create a socket pair".into())
    }

    /// Sends one message, 1 byte to 64 KiB, with any number of fds up to 16. EPIPE when the other side is gone.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
            let shape = format!("a message of {} bytes and {} descriptors", bytes.len(), fds.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, shape));
        }
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        retry(|| sendmsg::<()>(self.0.as_raw_fd(), &[io::IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None))?;
        Ok(())
    }

    /// The next message; `None` when the other side is gone.
    pub fn recv(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        self.recv_with(MsgFlags::empty())
    }

    /// [`Channel::recv`] that does not wait: `WouldBlock` when there is no message yet.
    pub fn try_recv(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        self.recv_with(MsgFlags::MSG_DONTWAIT)
    }

    /// The end for both sides, as if this one were dropped.
    pub fn end(&self) {
        // It fails only when there is no other side any more.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }

    fn recv_with(&self, flags: MsgFlags) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let (length, seen, fds) = retry(|| sys::recv_with_fds(self.0.as_fd(), &mut buffer, flags))?;
        if seen.contains(MsgFlags::MSG_TRUNC) || fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message longer than 64 KiB or with more than 16 descriptors"));
        }
        buffer.truncate(length);
        // A message is never empty, so nothing is the end.
        Ok((length > 0).then_some((buffer, fds)))
    }

    /// Whether the other side is gone.
    pub(super) fn is_closed(&self) -> nix::Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO)?;
        Ok(fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP)))
    }
}

/// Repeats a call that a signal interrupted. ECONNRESET is said once when the other side closed with messages unread, ahead of what it had sent
/// and of the end; the call after that sees those.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, fcntl};

    fn send_unchecked(channel: &Channel, bytes: &[u8], fds: &[RawFd]) {
        let control = [ControlMessage::ScmRights(fds)];
        sendmsg::<()>(channel.0.as_raw_fd(), &[io::IoSlice::new(bytes)], &control, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_and_the_next_is_read() {
        let (one, other) = Channel::pair().unwrap();
        assert_eq!(one.send(&[0; MAX_MESSAGE + 1], &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(one.send(&[], &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(one.send(&[0], &[one.as_fd(); MAX_FDS + 1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        send_unchecked(&one, &[0; MAX_MESSAGE + 1], &[]);
        assert_eq!(other.recv().unwrap_err().kind(), io::ErrorKind::InvalidData);
        one.send(&[7; MAX_MESSAGE], &[one.as_fd(); MAX_FDS]).unwrap();
        let (bytes, fds) = other.recv().unwrap().unwrap();
        assert_eq!((bytes.len(), fds.len()), (MAX_MESSAGE, MAX_FDS));
    }

    #[test]
    fn descriptors_of_a_refused_message_are_closed() {
        let (one, other) = Channel::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send_unchecked(&one, &[0], &[writer.as_raw_fd(); MAX_FDS + 1]);
        drop(writer);
        assert_eq!(other.recv().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        assert!(fds[0].revents().unwrap().contains(PollFlags::POLLHUP));
    }

    #[test]
    fn it_is_closed_by_exec_and_ends_after_what_was_sent() {
        let (one, other) = Channel::pair().unwrap();
        assert_eq!(fcntl(&one, FcntlArg::F_GETFD).unwrap(), libc::FD_CLOEXEC);
        assert!(!one.is_closed().unwrap());
        one.send(b"unread", &[]).unwrap();
        other.send(b"last", &[]).unwrap();
        drop(other);
        assert!(one.is_closed().unwrap());
        assert_eq!(one.recv().unwrap().unwrap().0, b"last");
        assert!(one.recv().unwrap().is_none());
    }
}
