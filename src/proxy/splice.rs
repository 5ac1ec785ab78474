//! Moving bytes between two sockets inside the kernel, splice(2), through pipes that exist only while bytes are in flight.

use std::{
    io, mem,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};
use tokio::{io::Interest, net::TcpStream};

use super::{
    opaque::{Burst, Failed},
    pace::Wake,
};

/// Octets moved at most by one call: what a pipe holds (pipe(7), 16 pages).
const PIPE_SIZE: usize = 64 * 1024;

/// The same for a fast source. An unprivileged user may have 1024 pipes of the ordinary size (pipe(7), /proc/sys/fs/pipe-user-pages-soft) and a
/// fourth of that of this one; beyond that they shrink, so few are made large, and few are hoarded.
const LARGE_PIPE_SIZE: usize = 4 * PIPE_SIZE;

/// Empty pipes kept for the next connection with something to move.
const MAX_POOLED: usize = 32;

static POOL: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// An empty pipe, both ends non-blocking.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    pub fn take() -> nix::Result<Self> {
        if let Some(pipe) = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self { read, write, size: PIPE_SIZE })
    }

    /// Where the system's limits forbid it, it stays as it is.
    pub fn enlarge(&mut self) {
        if self.size < LARGE_PIPE_SIZE && fcntl(&self.write, FcntlArg::F_SETPIPE_SZ(LARGE_PIPE_SIZE as i32)).is_ok() {
            self.size = LARGE_PIPE_SIZE;
        }
    }

    /// Only an empty pipe may serve another connection: one that is dropped half-full is closed.
    fn put(self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < MAX_POOLED {
            pool.push(self);
        }
    }

    /// Moves bytes until `from` has no more at hand. `Ok(None)`: this pair of sockets cannot be spliced (EINVAL), and nothing was taken.
    pub async fn burst(self, wake: Wake, from: &TcpStream, to: &TcpStream, mut moved: impl FnMut(usize)) -> Result<Option<Burst>, Failed> {
        // tokio asks the kernel only once that has told it of bytes, and it may not have.
        let mut untold = wake == Wake::Due;
        loop {
            let take = || step(from, &self.write, self.size);
            match if mem::take(&mut untold) { take() } else { from.try_io(Interest::READABLE, take) } {
                Ok(0) => {
                    self.put();
                    return Ok(Some(Burst::Ended));
                }
                Ok(mut held) => {
                    while held > 0 {
                        to.writable().await.map_err(Failed::Write)?;
                        match to.try_io(Interest::WRITABLE, || step(&self.read, to, held)) {
                            Ok(sent) => {
                                held -= sent;
                                moved(sent);
                            }
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                            Err(error) => return Err(Failed::Write(error)),
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.put();
                    return Ok(Some(Burst::Moved));
                }
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => return Ok(None),
                Err(error) => return Err(Failed::Read(error)),
            }
        }
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
    use crate::proxy::opaque::tests::pair;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Moves until `length` octets have passed or the source has ended.
    async fn splice_all(from: &TcpStream, to: &TcpStream, length: usize) -> (usize, bool) {
        let mut total = 0;
        while total < length {
            from.readable().await.unwrap();
            let burst = Pipe::take().unwrap().burst(Wake::Readable, from, to, |n| total += n).await;
            match burst {
                Ok(Some(Burst::Moved)) => {}
                Ok(Some(Burst::Ended)) => return (total, true),
                Ok(None) | Err(_) => panic!("not spliced"),
            }
        }
        (total, false)
    }

    #[tokio::test]
    async fn bytes_pass_in_order_and_the_end_is_seen() {
        const LENGTH: usize = 3 * PIPE_SIZE + 17;
        let ((mut source, from), (to, mut sink)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..LENGTH).map(|i| (i % 251) as u8).collect();
        let mut got = vec![0; LENGTH];
        let (moved, _, _) = tokio::join!(
            splice_all(&from, &to, LENGTH + 1),
            async {
                source.write_all(&sent).await.unwrap();
                source.shutdown().await.unwrap();
            },
            async { sink.read_exact(&mut got).await.unwrap() },
        );
        assert_eq!(moved, (LENGTH, true));
        assert!(got == sent);
    }

    #[tokio::test]
    async fn a_pipe_with_bytes_left_in_it_serves_no_one_else() {
        let ((mut source, from), (to, sink)) = (pair().await, pair().await);
        sink.set_zero_linger().unwrap();
        drop(sink);
        source.write_all(b"for the sink alone").await.unwrap();
        let mut failed = false;
        while !failed {
            from.readable().await.unwrap();
            failed = Pipe::take().unwrap().burst(Wake::Readable, &from, &to, |_| {}).await.is_err();
            source.write_all(b"more").await.unwrap();
        }
        let ((mut other, from), (to, mut sink)) = (pair().await, pair().await);
        other.write_all(b"ok").await.unwrap();
        splice_all(&from, &to, 2).await;
        let mut got = [0; 2];
        sink.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ok");
    }
}
