//! Moving bytes between two sockets inside the kernel, splice(2), through pipes that exist only while bytes are in flight.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};

/// Octets moved at most by one call: what a pipe holds (pipe(7), 16 pages).
const SIZE: usize = 64 * 1024;

/// The same for a fast source. An unprivileged user may have 1024 pipes of the ordinary size (pipe(7), /proc/sys/fs/pipe-user-pages-soft) and a
/// fourth of that of this one; beyond that they shrink, so few are made large, and few are hoarded.
const LARGE: usize = 4 * SIZE;

/// Empty pipes kept for the next connection with something to move.
const MAX_POOLED: usize = 32;

static POOL: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// Both ends non-blocking.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    /// Octets in it.
    held: usize,
}

impl Pipe {
    /// An empty one.
    pub fn take() -> nix::Result<Self> {
        if let Some(pipe) = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self { read, write, size: SIZE, held: 0 })
    }

    /// For the next connection. One with bytes left in it serves no one else.
    pub fn put(self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_empty() && pool.len() < MAX_POOLED {
            pool.push(self);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Where the system's limits forbid it, it stays as it is.
    pub fn enlarge(&mut self) {
        if self.size < LARGE && fcntl(&self.write, FcntlArg::F_SETPIPE_SZ(LARGE as i32)).is_ok() {
            self.size = LARGE;
        }
    }

    /// Takes what there is, into an empty pipe. `Ok(0)`: the source has ended. EINVAL: this socket cannot be spliced, and nothing was taken.
    pub fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let taken = step(from, &self.write, self.size)?;
        self.held += taken;
        Ok(taken)
    }

    pub fn empty(&mut self, to: impl AsFd) -> io::Result<usize> {
        let given = step(&self.read, to, self.held)?;
        self.held -= given;
        Ok(given)
    }
}

fn step(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    loop {
        match splice(from.as_fd(), None, to.as_fd(), None, length, flags) {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_with_bytes_left_in_it_serves_no_one_else() {
        let (mut pipe, (source, sink)) = (Pipe::take().unwrap(), std::os::unix::net::UnixStream::pair().unwrap());
        let left = nix::unistd::write(&pipe.write, b"for another").unwrap();
        pipe.held = left;
        pipe.put();
        nix::unistd::write(&source, b"ok").unwrap();
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(pipe.fill(&sink).unwrap(), 2);
        let mut got = [0; 16];
        assert_eq!(nix::unistd::read(&pipe.read, &mut got).unwrap(), 2);
        assert_eq!(&got[..2], b"ok");
    }
}
