//! `--expose`: a service on the host's loopback appears on the child's. `--publish`: a listener of the child appears on the host's.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as Bound},
    os::fd::OwnedFd,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    audit::{self, Blame, Verdict},
    host::Target,
};

use super::RunError;

/// Sockets asked of init but not yet made; more than that wait in the accept queue of the published port.
pub const QUEUE: usize = 16;
/// How long a failed accept waits.
const BACKOFF: Duration = Duration::from_millis(100);
/// Both loopback addresses, IPv4 first.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A socket of the namespace that somebody needs.
pub struct Wanted {
    pub v6: bool,
    pub reply: oneshot::Sender<io::Result<OwnedFd>>,
}

/// Binds the published ports on the host, before anything is started. A host without IPv6 has the IPv4 one alone.
pub fn publish(ports: &[u16]) -> Result<Vec<(u16, Vec<Bound>)>, RunError> {
    let bind = |port: u16| {
        let v4 = Bound::bind((LOOPBACK[0], port))?;
        let v6 = match Bound::bind((LOOPBACK[1], port)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported) => None,
            result => Some(result?),
        };
        Ok(std::iter::once(v4).chain(v6).collect())
    };
    ports.iter().map(|&port| Ok((port, bind(port).map_err(|error| RunError::Publish(port, error))?))).collect()
}

type Ports = Vec<(u16, Vec<Bound>)>;

/// Relays both kinds until the runtime ends; an error only where a listener cannot be used at all.
pub async fn serve(exposed: Ports, published: Ports, sockets: mpsc::Sender<Wanted>, audit: &audit::Log) -> io::Result<()> {
    let mut loops = JoinSet::new();
    for (port, listener) in flat(exposed) {
        let (listener, audit) = (listener?, audit.clone());
        loops.spawn(accept(listener, port, "exposed", audit, move || host_service(port)));
    }
    for (port, listener) in flat(published) {
        let (listener, audit, sockets) = (listener?, audit.clone(), sockets.clone());
        loops.spawn(accept(listener, port, "published", audit, move || child_listener(port, sockets.clone())));
    }
    match loops.join_next().await {
        Some(ended) => Err(io::Error::other(match ended {
            Ok(never) => match never {},
            Err(error) => error,
        })),
        None => std::future::pending().await,
    }
}

/// Out of descriptors, or a client that left again (accept(2)): neither ends the run.
async fn accept<S>(listener: TcpListener, port: u16, how: &'static str, audit: audit::Log, service: impl Fn() -> S) -> Infallible
where
    S: Future<Output = io::Result<TcpStream>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let mut record = audit.begin("tcp", Target { host: LOOPBACK[0].into(), port }, Some(LOOPBACK[0]));
                record.verdict(Verdict::Forwarded, how);
                tokio::spawn(relay(stream, service(), record));
            }
            Err(error) => {
                tracing::warn!(%error, port, "accept");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

fn flat(ports: Ports) -> impl Iterator<Item = (u16, io::Result<TcpListener>)> {
    ports.into_iter().flat_map(|(port, listeners)| listeners.into_iter().map(move |bound| (port, listen(bound))))
}

fn listen(bound: Bound) -> io::Result<TcpListener> {
    bound.set_nonblocking(true)?;
    TcpListener::from_std(bound)
}

async fn relay(mut from: TcpStream, to: impl Future<Output = io::Result<TcpStream>>, mut record: audit::Guard) {
    match to.await {
        Ok(mut to) => {
            let _ = (from.set_nodelay(true), to.set_nodelay(true));
            match copy_bidirectional(&mut from, &mut to).await {
                Ok((sent, received)) => record.bytes(sent, received),
                Err(error) => record.blame(Blame::Upstream, error.to_string()),
            }
        }
        Err(error) => record.blame(Blame::Upstream, error.to_string()),
    }
}

/// Whichever loopback address the service listens on.
async fn host_service(port: u16) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::NotConnected.into();
    for address in LOOPBACK {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Likewise inside, over sockets that init makes.
async fn child_listener(port: u16, sockets: mpsc::Sender<Wanted>) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::NotConnected.into();
    for address in LOOPBACK {
        match connect_inside(SocketAddr::new(address, port), &sockets).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_inside(address: SocketAddr, sockets: &mpsc::Sender<Wanted>) -> io::Result<TcpStream> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let (reply, socket) = oneshot::channel();
    sockets.send(Wanted { v6: address.is_ipv6(), reply }).await.map_err(|_| gone())?;
    let fd = socket.await.map_err(|_| gone())??;
    TcpSocket::from_std_stream(fd.into()).connect(address).await
}
