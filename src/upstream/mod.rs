//! The only room that opens outbound sockets: dialling, verified TLS, and the pool of connections to reuse.

mod adapt;
mod connect;
mod connection;
mod error;
mod forbidden;
mod pool;
mod roots;
#[cfg(test)]
mod tests;
mod tls;

pub use self::{connection::ResponseBody, error::UpstreamError, roots::RootsError, tls::BadCertificate};
pub use self::{forbidden::networks as forbidden_networks, roots::check as check_roots};

use self::{
    connect::Dialer,
    connection::{Connection, Failure, Opened},
    pool::{Entry, Pool},
    tls::Offer,
};
use crate::{credential::Authorized, host::Target};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Once, Weak},
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request body on its way up.
pub type Body = BoxBody<Bytes, BoxError>;

/// Where a verified connection goes: TLS name and port as checked, and the address the child itself had chosen (None: resolve the name here).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    pub target: Target,
    pub addr: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    H2,
}

/// As curl(1) waits by default is too long for an interactive tool; RFC 9293 §3.8.3 wants at least three minutes only for established connections.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Options {
    /// PEM files whose certificates are trusted besides the user's own (SSL_CERT_FILE, SSL_CERT_DIR, the system's).
    pub extra_roots: Vec<PathBuf>,
    /// For the TCP connection and, once more, for the TLS handshake.
    pub connect_timeout: Duration,
    /// Whether loopback and the host's own addresses may be reached. Metadata and link-local addresses may not either way.
    pub allow_host_addresses: bool,
    /// Addresses, with a port or for all, that may be reached although they are the host's, link-local or metadata: the user named them.
    pub named_addresses: Vec<(IpAddr, Option<u16>)>,
}

/// Dialler, TLS client and pool of one run; roots are read on first use.
pub struct Upstream {
    dialer: Dialer,
    tls: tls::Client,
    pool: Arc<Pool>,
    sweeping: Once,
}

impl Upstream {
    pub fn new(options: Options) -> Arc<Self> {
        let rule = forbidden::Rule::new(options.allow_host_addresses, options.named_addresses);
        Arc::new(Self {
            dialer: Dialer::new(rule, options.connect_timeout),
            tls: tls::Client::new(options.extra_roots, options.connect_timeout),
            pool: Arc::default(),
            sweeping: Once::new(),
        })
    }

    /// Whether this address may be reached only because the user named it.
    pub fn names(&self, addr: SocketAddr) -> bool {
        self.dialer.names(addr)
    }

    /// A plain TCP connection for an opaque relay, TCP_NODELAY set, forbidden addresses refused.
    pub async fn dial(&self, addr: SocketAddr) -> Result<TcpStream, UpstreamError> {
        self.dialer.dial(addr).await
    }

    /// As [`Self::dial`], to whatever address the target's name stands for.
    pub async fn dial_target(&self, target: &Target) -> Result<TcpStream, UpstreamError> {
        self.dialer.connect(target, None).await
    }

    /// What to offer the child by ALPN. `h2`: the child offers h2; it gets it where the destination speaks it, which is remembered. When nothing
    /// is remembered or the child wants HTTP/1.1, a verified connection exists afterwards and waits for the first request.
    pub async fn protocol(&self, destination: &Destination, h2: bool) -> Result<Protocol, UpstreamError> {
        let entry = self.entry(destination);
        if !h2 {
            return if entry.has_idle() { Ok(Protocol::Http1) } else { self.warm(destination, h2, &entry).await };
        }
        if let Some(protocol) = entry.speaks() {
            return Ok(protocol);
        }
        let _connecting = entry.connecting.lock().await;
        match entry.speaks() {
            Some(learnt_meanwhile) => Ok(learnt_meanwhile),
            None => self.warm(destination, h2, &entry).await,
        }
    }

    async fn warm(&self, destination: &Destination, h2: bool, entry: &Entry) -> Result<Protocol, UpstreamError> {
        match self.open(destination, h2, entry).await? {
            Opened::Http1(connection) => {
                entry.put(connection);
                Ok(Protocol::Http1)
            }
            Opened::H2(shared) => {
                entry.share(shared);
                Ok(Protocol::H2)
            }
        }
    }

    /// Sends one request over a pooled or new verified connection and gives back the response head with its streaming body.
    /// HTTP/2 requests share HTTP/2 connections where the destination speaks it; HTTP/1.1 requests stay HTTP/1.1, so upgrades work: the
    /// response then carries hyper's `OnUpgrade`. A request that the server may have processed is never sent twice.
    pub async fn send(&self, destination: &Destination, request: Authorized<Body>) -> Result<Response<ResponseBody>, UpstreamError> {
        self.exchange(destination, request.into_request()).await
    }

    async fn exchange(&self, destination: &Destination, request: Request<Body>) -> Result<Response<ResponseBody>, UpstreamError> {
        let h2 = request.version() == Version::HTTP_2;
        let target = &destination.target;
        let entry = self.entry(destination);
        let Some(pooled) = entry.take(h2) else {
            return Box::pin(self.send_fresh(destination, request, h2, &entry)).await;
        };
        let (head, body) = request.into_parts();
        let again = (h2 && body.is_end_stream()).then(|| head.clone());
        match pooled.send(Request::from_parts(head, body), target, &entry).await {
            Ok(response) => Ok(response),
            Err(Failure::Unsent(request, _)) => Box::pin(self.send_fresh(destination, *request, h2, &entry)).await,
            Err(Failure::Sent(error)) => match again {
                Some(head) if connection::is_unprocessed(&error) => {
                    let request = Request::from_parts(head, Empty::new().map_err(|never| match never {}).boxed());
                    Box::pin(self.send_fresh(destination, request, h2, &entry)).await
                }
                _ => Err(http_error(target, error)),
            },
        }
    }

    async fn send_fresh(
        &self,
        destination: &Destination,
        request: Request<Body>,
        h2: bool,
        entry: &Arc<Entry>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let connection = self.connection(destination, h2, entry).await?;
        connection.send(request, &destination.target, entry).await.map_err(|failure| match failure {
            Failure::Unsent(_, error) | Failure::Sent(error) => http_error(&destination.target, error),
        })
    }

    /// A new connection, or for HTTP/2 a place on the one that another request has opened meanwhile.
    async fn connection(&self, destination: &Destination, h2: bool, entry: &Arc<Entry>) -> Result<Connection, UpstreamError> {
        let share = h2 && entry.speaks() != Some(Protocol::Http1);
        let _connecting = if share { Some(entry.connecting.lock().await) } else { None };
        if share && let Some(connection) = entry.take(true) {
            return Ok(connection);
        }
        Ok(match self.open(destination, h2, entry).await? {
            Opened::Http1(connection) => Connection::Http1(connection),
            Opened::H2(shared) => {
                let first = shared.enter();
                entry.share(shared);
                first
            }
        })
    }

    async fn open(&self, destination: &Destination, h2: bool, entry: &Entry) -> Result<Opened, UpstreamError> {
        // On the heap, since it is many times larger than what a request over a pooled connection needs.
        match Box::pin(self.handshakes(destination, h2)).await {
            Ok((opened, protocol)) => {
                if h2 {
                    entry.learn(protocol);
                }
                Ok(opened)
            }
            Err(error) => {
                self.pool.forget(destination);
                Err(error)
            }
        }
    }

    /// TCP, TLS, HTTP.
    async fn handshakes(&self, destination: &Destination, h2: bool) -> Result<(Opened, Protocol), UpstreamError> {
        let target = &destination.target;
        let (tcp, _) = tokio::try_join!(self.dialer.connect(target, destination.addr), self.tls.ready())?;
        let offer = if h2 { Offer::Any } else { Offer::Http1 };
        let (stream, protocol) = self.tls.connect(tcp, target, offer).await?;
        let opened = connection::open(stream, protocol).await.map_err(|error| http_error(target, error))?;
        Ok((opened, protocol))
    }

    fn entry(&self, destination: &Destination) -> Arc<Entry> {
        self.sweeping.call_once(|| drop(tokio::spawn(sweep(Arc::downgrade(&self.pool)))));
        self.pool.entry(destination)
    }
}

/// Until the pool is gone.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(pool::SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.sweep(Instant::now());
    }
}

fn http_error(target: &Target, source: hyper::Error) -> UpstreamError {
    let target = target.clone();
    if source.is_user() { UpstreamError::RequestBody { target, source } } else { UpstreamError::Http { target, source } }
}
