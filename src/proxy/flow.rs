//! The opaque relay between two sockets, by splice(2): two flows, each at its own pace.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use nix::errno::Errno;
use socket2::SockRef;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::consume_budget,
};

use super::{
    opaque::{COPY_SIZE, DOWN, Ends, Failure, UP},
    pace::{Pace, Pause},
    splice::Pipe,
};

/// A socket as far as its readiness is watched.
type Watched<'a> = AsyncFd<BorrowedFd<'a>>;

/// Why a flow returns.
enum Turn {
    Ended,
    /// The source sends more than is worth waiting for octet by octet.
    Fast,
}

enum Direction {
    Up,
    Down,
}

/// One direction. Whatever it has taken and not yet given is in here, not in a future, which may be dropped at any time.
struct Flow<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    moved: &'a AtomicU64,
    ends: Ends,
    held: Held,
    pace: Pace,
    ended: bool,
}

enum Held {
    Nothing,
    Pipe(Pipe),
    /// And how many of them have been given.
    Bytes(Vec<u8>, usize),
}

/// Relays until both directions have ended. `seen` was read from the client already and goes first.
pub async fn relay(client: &TcpStream, server: &TcpStream, seen: Vec<u8>, sent: &AtomicU64, received: &AtomicU64) -> Result<(), Failure> {
    let mut up = Flow::new(client, server, sent, UP, Held::Bytes(seen, 0));
    let mut down = Flow::new(server, client, received, DOWN, Held::Nothing);
    loop {
        match both(&mut up, &mut down).await? {
            None => return Ok(()),
            Some(Direction::Up) => hasten(&mut up, &mut down).await?,
            Some(Direction::Down) => hasten(&mut down, &mut up).await?,
        }
    }
}

/// Until both have ended, or one is fast.
async fn both(up: &mut Flow<'_>, down: &mut Flow<'_>) -> Result<Option<Direction>, Failure> {
    let watched = |socket| watch(socket, Interest::READABLE | Interest::WRITABLE, UP);
    let (client, server) = (watched(up.from)?, watched(up.to)?);
    let mut up = pin!(up.run(&client, &server));
    let mut down = pin!(down.run(&server, &client));
    let (mut up_ended, mut down_ended) = (false, false);
    while !(up_ended && down_ended) {
        tokio::select! {
            turn = &mut up, if !up_ended => match turn? {
                Turn::Ended => up_ended = true,
                Turn::Fast => return Ok(Some(Direction::Up)),
            },
            turn = &mut down, if !down_ended => match turn? {
                Turn::Ended => down_ended = true,
                Turn::Fast => return Ok(Some(Direction::Down)),
            },
        }
    }
    Ok(None)
}

/// Until the fast one is so no longer. Its source is not watched meanwhile, so nothing wakes for what arrives there.
async fn hasten(fast: &mut Flow<'_>, other: &mut Flow<'_>) -> Result<(), Failure> {
    let from = watch(fast.from, Interest::WRITABLE, fast.ends)?;
    let to = watch(fast.to, Interest::READABLE | Interest::WRITABLE, fast.ends)?;
    let mut fast = pin!(fast.run_unwoken(&to));
    let mut other = pin!(other.run(&to, &from));
    let mut other_ended = false;
    loop {
        tokio::select! {
            done = &mut fast => return done,
            turn = &mut other, if !other_ended => match turn? {
                Turn::Ended => other_ended = true,
                Turn::Fast => return Ok(()),
            },
        }
    }
}

/// The deprecated constructor asks that the descriptor never changes, as a borrowed one does not; its successor is `unsafe`.
#[expect(deprecated)]
fn watch(socket: &TcpStream, interest: Interest, ends: Ends) -> Result<Watched<'_>, Failure> {
    AsyncFd::with_interest(socket.as_fd(), interest).map_err(|error| (ends.from, error))
}

impl<'a> Flow<'a> {
    fn new(from: &'a TcpStream, to: &'a TcpStream, moved: &'a AtomicU64, ends: Ends, held: Held) -> Self {
        Self { from, to, moved, ends, held, pace: Pace::new(), ended: false }
    }

    /// Moves what comes, as it comes.
    async fn run(&mut self, from: &Watched<'_>, to: &Watched<'_>) -> Result<Turn, Failure> {
        loop {
            let given = self.give(to).await?;
            if self.ended {
                return Ok(Turn::Ended);
            }
            if self.pace.is_fast_with(given) {
                return Ok(Turn::Fast);
            }
            let mut ready = from.readable().await.map_err(|error| (self.ends.from, error))?;
            match self.take(false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                taken => taken.map_err(|error| (self.ends.from, error))?,
            }
        }
    }

    /// Looks every so often, until the source is slow or has ended. Where there is no timer to be had, the source is as good as slow.
    async fn run_unwoken(&mut self, to: &Watched<'_>) -> Result<(), Failure> {
        let Ok(pause) = Pause::new() else { return Ok(()) };
        loop {
            pause.wait().await.map_err(|error| (self.ends.from, error))?;
            let mut octets = 0;
            loop {
                octets += self.give(to).await?;
                if self.ended {
                    return Ok(());
                }
                match self.take(true) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    taken => taken.map_err(|error| (self.ends.from, error))?,
                }
            }
            if self.pace.is_slow_with(octets) {
                return Ok(());
            }
        }
    }

    /// Takes what there is now, once. Sockets that cannot be spliced are copied, and so is what comes while no pipe can be had (too many open files).
    fn take(&mut self, fast: bool) -> io::Result<()> {
        let Ok(mut pipe) = Pipe::take() else { return self.copy() };
        if fast {
            pipe.enlarge();
        }
        match pipe.fill(self.from) {
            Ok(0) => {
                self.ended = true;
                pipe.put();
            }
            Ok(_) => self.held = Held::Pipe(pipe),
            Err(error) => {
                pipe.put();
                return if error.raw_os_error() == Some(Errno::EINVAL as i32) { self.copy() } else { Err(error) };
            }
        }
        Ok(())
    }

    fn copy(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; COPY_SIZE];
        let taken = { self.from }.read(&mut buffer)?;
        buffer.truncate(taken);
        (self.ended, self.held) = (taken == 0, Held::Bytes(buffer, 0));
        Ok(())
    }

    /// Gives all that is held, and the end of the direction as a half-close; how many octets that were.
    async fn give(&mut self, to: &Watched<'_>) -> Result<usize, Failure> {
        let mut given = 0;
        while !self.held.is_empty() {
            let mut ready = to.writable().await.map_err(|error| (self.ends.to, error))?;
            match self.held.give(self.to) {
                Ok(octets) => {
                    given += octets;
                    self.moved.fetch_add(octets as u64, Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err((self.ends.to, error)),
            }
            // A source that never runs dry is not all that this thread serves.
            consume_budget().await;
        }
        if let Held::Pipe(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            pipe.put();
        }
        if self.ended {
            // The other side may be gone already; then there is no one to tell.
            drop(SockRef::from(self.to).shutdown(Shutdown::Write));
        }
        Ok(given)
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Pipe(pipe) => pipe.is_empty(),
            Self::Bytes(bytes, given) => bytes.len() == *given,
        }
    }

    fn give(&mut self, mut to: &TcpStream) -> io::Result<usize> {
        match self {
            Self::Nothing => Ok(0),
            Self::Pipe(pipe) => pipe.empty(to),
            Self::Bytes(bytes, given) => {
                let octets = to.write(&bytes[*given..])?;
                *given += octets;
                Ok(octets)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Blame;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net,
        task::JoinHandle,
    };

    /// More than makes a source fast, and a rest that is waited for in vain.
    const MUCH: usize = (64 << 20) + 17;

    /// Both ends of a connection over loopback.
    async fn pair() -> (net::TcpStream, net::TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(net::TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// The child's end, the server's, and the relay between them, which tells whether the child broke it, if it broke, and what it has moved.
    async fn relayed(seen: &'static [u8]) -> (net::TcpStream, net::TcpStream, JoinHandle<(Option<bool>, u64, u64)>) {
        let ((child, client), (server, origin)) = (pair().await, pair().await);
        let (client, server) = (client.into_std().unwrap(), server.into_std().unwrap());
        let relay = tokio::spawn(async move {
            let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
            let broken = relay(&client, &server, seen.to_vec(), &sent, &received).await.err().map(|(blame, _)| blame == Blame::Downstream);
            (broken, sent.into_inner(), received.into_inner())
        });
        (child, origin, relay)
    }

    fn octets(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    async fn write(stream: &mut net::tcp::WriteHalf<'_>, octets: &[u8]) {
        stream.write_all(octets).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    async fn read(stream: &mut net::tcp::ReadHalf<'_>) -> Vec<u8> {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        got
    }

    #[tokio::test]
    async fn what_was_seen_goes_first_and_each_direction_ends_by_itself() {
        let (mut child, mut origin, relay) = relayed(b"seen ").await;
        let ((mut from_child, mut to_child), (mut from_origin, mut to_origin)) = (origin.split(), child.split());
        write(&mut to_origin, b"and more").await;
        assert_eq!(read(&mut from_child).await, b"seen and more");
        write(&mut to_child, b"an answer to all of it").await;
        assert_eq!(read(&mut from_origin).await, b"an answer to all of it");
        assert_eq!(relay.await.unwrap(), (None, 13, 22));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn fast_flows_both_ways_arrive_whole() {
        let (mut child, mut origin, relay) = relayed(b"").await;
        let ((mut from_child, mut to_child), (mut from_origin, mut to_origin)) = (origin.split(), child.split());
        let much = octets(MUCH);
        let ((), (), up, down) =
            tokio::join!(write(&mut to_origin, &much), write(&mut to_child, &much), read(&mut from_child), read(&mut from_origin));
        assert!(up == much && down == much);
        assert_eq!(relay.await.unwrap(), (None, MUCH as u64, MUCH as u64));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_fast_flow_gives_its_last_octets_without_an_end_and_the_other_way_goes_on() {
        let (mut child, mut origin, _relay) = relayed(b"").await;
        let much = octets(MUCH);
        let ((mut from_child, mut to_child), (mut from_origin, mut to_origin)) = (origin.split(), child.split());
        let mut got = vec![0; MUCH];
        let (written, read) = tokio::join!(to_child.write_all(&much), from_origin.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(got == much);
        to_origin.write_all(b"thanks").await.unwrap();
        let mut got = [0; 6];
        from_child.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"thanks");
    }

    #[tokio::test]
    async fn a_source_taken_for_fast_is_emptied_unwatched_until_it_proves_slow() {
        let ((mut child, client), (server, mut origin)) = (pair().await, pair().await);
        let (client, server) = (client.into_std().unwrap(), server.into_std().unwrap());
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut up = Flow::new(&client, &server, &sent, UP, Held::Bytes(b"from the child".to_vec(), 0));
        let mut down = Flow::new(&server, &client, &received, DOWN, Held::Nothing);
        origin.write_all(b"few").await.unwrap();
        assert!(hasten(&mut down, &mut up).await.is_ok());
        let mut got = [0; 3];
        child.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"few");
        assert!(!down.ended && !up.ended);
        let mut got = [0; 14];
        origin.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"from the child", "meanwhile");
        origin.shutdown().await.unwrap();
        assert!(hasten(&mut down, &mut up).await.is_ok());
        assert!(down.ended && !up.ended);
    }

    #[tokio::test]
    async fn a_reset_is_told_with_its_direction() {
        let (child, origin, relay) = relayed(b"").await;
        child.set_zero_linger().unwrap();
        drop(child);
        assert_eq!(relay.await.unwrap().0, Some(true));
        drop(origin);
        let (child, origin, relay) = relayed(b"").await;
        origin.set_zero_linger().unwrap();
        drop(origin);
        assert_eq!(relay.await.unwrap().0, Some(false));
        drop(child);
    }

    #[tokio::test]
    async fn what_cannot_be_spliced_is_copied() {
        let ((mut source, from), (to, mut sink)) = (pair().await, pair().await);
        let (from, to, moved) = (from.into_std().unwrap(), to.into_std().unwrap(), AtomicU64::new(0));
        let mut flow = Flow::new(&from, &to, &moved, UP, Held::Nothing);
        source.write_all(b"through memory").await.unwrap();
        source.shutdown().await.unwrap();
        let watched = watch(&to, Interest::WRITABLE, UP).unwrap();
        while !flow.ended {
            flow.copy().unwrap();
            assert!(flow.give(&watched).await.is_ok());
        }
        let mut got = Vec::new();
        sink.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"through memory");
        assert_eq!(moved.into_inner(), 14);
    }
}
