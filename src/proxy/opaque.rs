//! The opaque relay: bytes pass both ways as they are, and so do the end of a direction and a reset.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

#[cfg(target_os = "linux")]
use super::{pace::Pace, splice::Pipe};
use crate::{
    audit::{Blame, Guard},
    defence::crash_on,
    upstream::{Outbound, Tunnel},
};

/// Octets of the buffer where splice(2) does not serve; on the heap only while bytes are in flight.
const COPY_SIZE: usize = 16 * 1024;

/// Relays until both directions have ended. `seen` was read from the client already and goes first.
/// An error on either side resets both; `guard` gets the counts and the blame.
pub async fn relay(client: TcpStream, server: Outbound, seen: Vec<u8>, guard: Guard) {
    let mut tally = Tally { guard, sent: AtomicU64::new(0), received: AtomicU64::new(0) };
    let mut client = End(client);
    let done = match server {
        Outbound::Socket(server) => {
            let server = End(server);
            let done = sockets(&client.0, &server.0, seen, &tally).await;
            if done.is_err() {
                server.reset();
            }
            done
        }
        Outbound::Tunnel(server) => tunnel(&mut client.0, server, seen, &tally).await,
    };
    if let Err((blame, error)) = done {
        tally.guard.blame(blame, error.to_string());
        client.reset();
    }
}

/// One end of a relay. A panic is no clean end to its peer.
struct End(TcpStream);

impl End {
    /// See [`reset`].
    fn reset(&self) {
        drop(self.0.set_zero_linger());
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.reset();
        }
    }
}

async fn sockets(client: &TcpStream, server: &TcpStream, seen: Vec<u8>, tally: &Tally) -> Result<(), (Blame, io::Error)> {
    let up = async {
        crash_on(&seen);
        write_all(server, &seen, &tally.sent).await.map_err(|e| (Blame::Upstream, e))?;
        drop(seen);
        pump(client, server, &tally.sent).await.map_err(|failed| failed.blame(Blame::Downstream, Blame::Upstream))
    };
    let down = async { pump(server, client, &tally.received).await.map_err(|failed| failed.blame(Blame::Upstream, Blame::Downstream)) };
    tokio::try_join!(up, down).map(drop)
}

/// There is no socket whose bytes the kernel could move.
async fn tunnel(client: &mut TcpStream, server: Tunnel, seen: Vec<u8>, tally: &Tally) -> Result<(), (Blame, io::Error)> {
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let (mut from_client, mut to_client) = client.split();
    let up = async {
        to_server.write_all(&seen).await.map_err(|e| (Blame::Upstream, e))?;
        tally.sent.fetch_add(seen.len() as u64, Relaxed);
        drop(seen);
        let pumped = pump_bytes(&mut from_client, &mut to_server, &tally.sent).await;
        pumped.map_err(|failed| failed.blame(Blame::Downstream, Blame::Upstream))
    };
    let down = async {
        let pumped = pump_bytes(&mut from_server, &mut to_client, &tally.received).await;
        pumped.map_err(|failed| failed.blame(Blame::Upstream, Blame::Downstream))
    };
    tokio::try_join!(up, down).map(drop)
}

/// As [`pump`], byte by byte through memory.
async fn pump_bytes(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), moved: &AtomicU64) -> Result<(), Failed> {
    let mut buffer = vec![0; COPY_SIZE];
    loop {
        let n = from.read(&mut buffer).await.map_err(Failed::Read)?;
        if n == 0 {
            break;
        }
        to.write_all(&buffer[..n]).await.map_err(Failed::Write)?;
        to.flush().await.map_err(Failed::Write)?;
        moved.fetch_add(n as u64, Relaxed);
    }
    // The other side may be gone already; then there is no one to tell.
    drop(to.shutdown().await);
    Ok(())
}

/// Closes with RST instead of FIN (SO_LINGER 0, socket(7)), so that the peer cannot mistake it for a clean end.
pub fn reset(stream: TcpStream) {
    // A socket that refuses the option is dead already.
    drop(stream.set_zero_linger());
}

/// What one burst of bytes came to.
pub(super) enum Burst {
    /// Moved what there was; the source has nothing more now.
    Moved,
    /// The source has ended.
    Ended,
}

/// Which side of a move failed.
pub(super) enum Failed {
    Read(io::Error),
    Write(io::Error),
}

/// Counts that reach the record even if the relay is dropped halfway.
struct Tally {
    guard: Guard,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.guard.bytes(self.sent.load(Relaxed), self.received.load(Relaxed));
    }
}

/// One direction, to its end, which is passed on as a half-close.
async fn pump(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> Result<(), Failed> {
    move_all(from, to, moved).await?;
    // The other side may be gone already; then there is no one to tell.
    drop(SockRef::from(to).shutdown(std::net::Shutdown::Write));
    Ok(())
}

/// Sockets that cannot be spliced are copied; a pipe that cannot be had (too many open files) costs only this burst.
#[cfg(target_os = "linux")]
async fn move_all(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> Result<(), Failed> {
    let mut pace = Pace::new(from);
    loop {
        let wake = pace.wait().await.map_err(Failed::Read)?;
        let before = moved.load(Relaxed);
        let burst = match Pipe::take() {
            Ok(mut pipe) => {
                if pace.is_fast() {
                    pipe.enlarge();
                }
                let count = |n: usize| {
                    moved.fetch_add(n as u64, Relaxed);
                };
                let Some(burst) = pipe.burst(wake, from, to, count).await? else { return copy_all(from, to, moved).await };
                burst
            }
            Err(_) => copy(from, to, moved).await?,
        };
        match burst {
            Burst::Moved => pace.moved(wake, moved.load(Relaxed) - before),
            Burst::Ended => return Ok(()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
async fn move_all(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> Result<(), Failed> {
    copy_all(from, to, moved).await
}

async fn copy_all(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> Result<(), Failed> {
    loop {
        from.readable().await.map_err(Failed::Read)?;
        if let Burst::Ended = copy(from, to, moved).await? {
            return Ok(());
        }
    }
}

async fn copy(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> Result<Burst, Failed> {
    let mut buffer = vec![0; COPY_SIZE];
    match from.try_read(&mut buffer) {
        Ok(0) => Ok(Burst::Ended),
        Ok(n) => write_all(to, &buffer[..n], moved).await.map(|()| Burst::Moved).map_err(Failed::Write),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Burst::Moved),
        Err(error) => Err(Failed::Read(error)),
    }
}

async fn write_all(to: &TcpStream, mut bytes: &[u8], moved: &AtomicU64) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(n) => {
                moved.fetch_add(n as u64, Relaxed);
                bytes = &bytes[n..];
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Failed {
    fn blame(self, reader: Blame, writer: Blame) -> (Blame, io::Error) {
        match self {
            Self::Read(error) => (reader, error),
            Self::Write(error) => (writer, error),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Both ends of a connection over loopback.
    pub async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn where_nothing_can_be_spliced_bytes_are_copied() {
        const LENGTH: usize = 5 * COPY_SIZE + 3;
        let ((mut source, from), (to, mut sink)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..LENGTH).map(|i| (i % 251) as u8).collect();
        let (mut got, moved) = (vec![0; LENGTH], AtomicU64::new(0));
        let copying = async { assert!(copy_all(&from, &to, &moved).await.is_ok()) };
        let writing = async {
            source.write_all(&sent).await.unwrap();
            source.shutdown().await.unwrap();
        };
        let reading = async { sink.read_exact(&mut got).await.unwrap() };
        tokio::join!(copying, writing, reading);
        assert!(got == sent);
        assert_eq!(moved.into_inner(), LENGTH as u64);
    }
}
