//! The opaque relay: bytes pass both ways as they are, and so do the end of a direction and a reset.

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

#[cfg(target_os = "linux")]
use super::flow;
use crate::{
    audit::{Blame, Guard},
    defence::crash_on,
    upstream::Outbound,
};

/// Octets of the buffer where splice(2) does not serve; on the heap only while bytes are in flight.
pub(super) const COPY_SIZE: usize = 16 * 1024;

/// Relays until both directions have ended. `seen` was read from the client already and goes first.
/// An error on either side resets both; `guard` gets the counts and the blame.
pub async fn relay(client: TcpStream, server: Outbound, seen: Vec<u8>, guard: Guard) {
    let mut tally = Tally { guard, sent: AtomicU64::new(0), received: AtomicU64::new(0) };
    let done = match server {
        Outbound::Socket(server) => sockets(client, server, seen, &tally).await,
        Outbound::Tunnel(server) => {
            let mut client = End(client);
            let done = through_memory(&mut client.0, server, seen, &tally).await;
            if done.is_err() {
                client.reset();
            }
            done
        }
    };
    if let Err((blame, error)) = done {
        tally.guard.blame(blame, error.to_string());
    }
}

/// One end of a relay. A panic is no clean end to its peer.
struct End<S: AsFd>(S);

impl<S: AsFd> End<S> {
    /// See [`reset`].
    fn reset(&self) {
        drop(SockRef::from(&self.0).set_linger(Some(Duration::ZERO)));
    }
}

impl<S: AsFd> Drop for End<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.reset();
        }
    }
}

#[cfg(target_os = "linux")]
async fn sockets(client: TcpStream, server: TcpStream, seen: Vec<u8>, tally: &Tally) -> Result<(), Failure> {
    let internal = |error| (Blame::Internal, error);
    let (client, server) = (End(client.into_std().map_err(internal)?), End(server.into_std().map_err(internal)?));
    crash_on(&seen);
    let done = flow::relay(&client.0, &server.0, seen, &tally.sent, &tally.received).await;
    if done.is_err() {
        client.reset();
        server.reset();
    }
    done
}

#[cfg(not(target_os = "linux"))]
async fn sockets(client: TcpStream, server: TcpStream, seen: Vec<u8>, tally: &Tally) -> Result<(), Failure> {
    let (mut client, mut server) = (End(client), End(server));
    crash_on(&seen);
    let done = through_memory(&mut client.0, &mut server.0, seen, tally).await;
    if done.is_err() {
        client.reset();
        server.reset();
    }
    done
}

/// Where there are no two sockets between which the kernel could move the bytes.
async fn through_memory(
    client: &mut TcpStream,
    server: impl AsyncRead + AsyncWrite + Unpin,
    seen: Vec<u8>,
    tally: &Tally,
) -> Result<(), Failure> {
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let (mut from_client, mut to_client) = client.split();
    let up = async {
        to_server.write_all(&seen).await.map_err(|e| (Blame::Upstream, e))?;
        tally.sent.fetch_add(seen.len() as u64, Relaxed);
        drop(seen);
        pump_bytes(&mut from_client, &mut to_server, &tally.sent, UP).await
    };
    let down = pump_bytes(&mut from_server, &mut to_client, &tally.received, DOWN);
    tokio::try_join!(up, down).map(drop)
}

/// One direction, to its end, which is passed on as a half-close.
async fn pump_bytes(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &AtomicU64,
    ends: Ends,
) -> Result<(), Failure> {
    let mut buffer = vec![0; COPY_SIZE];
    loop {
        let n = from.read(&mut buffer).await.map_err(|error| (ends.from, error))?;
        if n == 0 {
            break;
        }
        to.write_all(&buffer[..n]).await.map_err(|error| (ends.to, error))?;
        to.flush().await.map_err(|error| (ends.to, error))?;
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

/// What ends a relay, and whose doing it is.
pub(super) type Failure = (Blame, io::Error);

/// Who is to blame for what fails at either end of a direction.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub from: Blame,
    pub to: Blame,
}

pub(super) const UP: Ends = Ends { from: Blame::Downstream, to: Blame::Upstream };
pub(super) const DOWN: Ends = Ends { from: Blame::Upstream, to: Blame::Downstream };

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
