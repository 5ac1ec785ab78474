//! The only room that opens outbound sockets: dialling, verified TLS, and the pool of connections to reuse.

mod adapt;
mod connect;
mod connection;
mod error;
mod expect;
mod farewell;
pub mod fields;
mod forbidden;
mod insert;
mod last_words;
mod no_proxy;
mod outbound;
mod pool;
mod proxy;
mod queue;
mod read_ahead;
mod roots;
#[cfg(test)]
mod tests;
mod tls;
mod whole;

pub use self::{
    connection::ResponseBody,
    expect::on_interim,
    farewell::Farewell,
    insert::{InsertStream, Inserts, TrailerBody},
    no_proxy::{NoProxy, entries as no_proxy_entries},
    outbound::{Outbound, Tunnel},
    proxy::{InvalidProxy, Proxies},
    whole::Whole,
};
pub use self::{error::UpstreamError, roots::RootsError, tls::BadCertificate};
pub use self::{forbidden::networks as forbidden_networks, roots::check as check_roots};

use self::{
    connect::{Dialer, Plain},
    connection::{Connection, Failure, Opened},
    pool::{Entry, Pool},
    queue::Opening,
    tls::Offer,
};
use crate::{credential::Authorized, host::Target};
use bytes::Bytes;
use http::{Request, Response, Uri, Version, header, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::{
    future::{pending, poll_fn},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::pin,
    sync::{Arc, Once, Weak},
    time::{Duration, Instant},
};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request body on its way up.
pub type Body = BoxBody<Bytes, BoxError>;

/// Says nothing of its length, from which hyper makes a `content-length` that nobody sent.
pub fn empty() -> Body {
    Empty::new().map_frame(|frame| frame).map_err(|never| match never {}).boxed()
}

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
    /// What connections go through.
    pub proxies: Proxies,
}

/// Dialler, TLS client and pool of one run; roots are read on first use.
pub struct Upstream {
    dialer: Dialer,
    tls: Arc<tls::Client>,
    pool: Arc<Pool>,
    sweeping: Once,
}

impl Upstream {
    pub fn new(options: Options) -> Arc<Self> {
        let rule = forbidden::Rule::new(options.allow_host_addresses, options.named_addresses);
        let tls = Arc::new(tls::Client::new(options.extra_roots, options.connect_timeout));
        Arc::new(Self {
            dialer: Dialer::new(rule, options.proxies, tls.clone(), options.connect_timeout),
            tls,
            pool: Arc::default(),
            sweeping: Once::new(),
        })
    }

    /// Whether this address may be reached only because the user named it.
    pub fn names(&self, addr: SocketAddr) -> bool {
        self.dialer.names(addr)
    }

    /// A connection for an opaque relay, TCP_NODELAY set, forbidden addresses refused. A proxy is asked for the target; else `addr` is dialled, and
    /// where there is none whatever the target's name stands for.
    pub async fn dial(&self, target: &Target, addr: Option<SocketAddr>) -> Result<Outbound, UpstreamError> {
        self.dialer.connect(target, addr).await
    }

    /// What connections go through.
    pub fn proxies(&self) -> &Proxies {
        self.dialer.proxies()
    }

    /// Whether every proxy can be reached.
    pub async fn probe_proxies(&self) -> Result<(), UpstreamError> {
        for proxy in self.proxies().each() {
            self.dialer.probe(proxy).await?;
        }
        Ok(())
    }

    /// Sends one request of plain HTTP, in origin form, over a connection of its own: it is rare and not worth a pool. A proxy that speaks HTTP is
    /// asked for the URL (RFC 9112 §3.2.2), not for a tunnel, which many grant to port 443 alone.
    pub async fn send_plain(&self, target: &Target, mut request: Request<Body>) -> Result<Response<Incoming>, UpstreamError> {
        let failed = |source| UpstreamError::Http { target: target.clone(), source };
        let (outbound, proxy) = match self.dialer.connect_plain(target).await? {
            Plain::Server(outbound) => (outbound, None),
            Plain::Proxy(outbound, proxy) => (outbound, Some(proxy)),
        };
        if let Some(proxy) = &proxy {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
            if let Ok(uri) = Uri::builder().scheme("http").authority(target.to_string()).path_and_query(path).build() {
                *request.uri_mut() = uri;
            }
            if let Some(value) = proxy.authorization() {
                request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
            }
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(outbound)).await.map_err(failed)?;
        let mut connection = Some(Box::pin(connection.with_upgrades()));
        let mut response = pin!(sender.send_request(request));
        // As on pooled connections, interim answers wake whoever waits for the response.
        let response = poll_fn(|cx| {
            if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
                connection = None;
            }
            response.as_mut().poll(cx)
        });
        let response = response.await.map_err(failed)?;
        connection.map(tokio::spawn);
        if let Some(proxy) = proxy {
            proxy.check(&response)?;
        }
        Ok(response)
    }

    /// What to offer the child by ALPN. `h2`: the child offers h2; it gets it where the destination speaks it, which is remembered. When nothing
    /// is remembered or the child wants HTTP/1.1, a verified connection exists afterwards and waits for the first request.
    pub async fn protocol(self: &Arc<Self>, destination: &Destination, h2: bool) -> Result<Protocol, UpstreamError> {
        let entry = self.entry(destination);
        let known = || if h2 { entry.speaks() } else { entry.has_idle().then_some(Protocol::Http1) };
        if let Some(protocol) = known() {
            return Ok(protocol);
        }
        self.wait(destination, h2, h2, &entry, known, |opened| entry.keep(opened)).await
    }

    /// Sends one request over a pooled or new verified connection and gives back the response head with its streaming body.
    /// HTTP/2 requests share HTTP/2 connections where the destination speaks it; HTTP/1.1 requests stay HTTP/1.1, so upgrades work: the
    /// response then carries hyper's `OnUpgrade`. A request that the server may have processed is sent twice only if that makes no difference
    /// (RFC 9110 §9.2.2) and the connection was an idle one, which the server may have closed in that moment; one without a request so far is as
    /// good as new.
    pub async fn send(
        self: &Arc<Self>,
        destination: &Destination,
        request: Authorized<Body>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        self.exchange(destination, request.into_request()).await
    }

    async fn exchange(
        self: &Arc<Self>,
        destination: &Destination,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let entry = self.entry(destination);
        if request.version() == Version::HTTP_2 && adapt::is_websocket(&request) {
            return Box::pin(self.websocket(destination, request, &entry)).await;
        }
        self.exchange_on(destination, request, &entry).await
    }

    /// A WebSocket asked for in HTTP/2 goes on so where the server is known to take it, and else in HTTP/1.1, which every WebSocket server speaks
    /// but those of HTTP/2 alone.
    async fn websocket(
        self: &Arc<Self>,
        destination: &Destination,
        request: Request<Body>,
        entry: &Arc<Entry>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let target = &destination.target;
        for shared in entry.shared() {
            if shared.takes_connect()
                && let Some(connection) = shared.lease()
            {
                return connection.send(request, target, entry).await.map_err(|failure| failure.into_error(target));
            }
        }
        let (head, body) = request.into_parts();
        let mut in_http1 = Request::from_parts(head.clone(), body);
        *in_http1.version_mut() = Version::HTTP_11;
        let refused = match self.exchange_on(destination, in_http1, entry).await {
            Err(error @ UpstreamError::Tls { .. }) if entry.speaks() == Some(Protocol::H2) => error,
            exchanged => return exchanged,
        };
        let Opened::H2(shared) = self.open(destination, true, entry).await? else { return Err(refused) };
        entry.share(shared.clone());
        let Some(connection) = shared.enter_for_connect().await else { return Err(refused) };
        let request = Request::from_parts(head, empty());
        connection.send(request, target, entry).await.map_err(|failure| failure.into_error(target))
    }

    async fn exchange_on(
        self: &Arc<Self>,
        destination: &Destination,
        mut request: Request<Body>,
        entry: &Arc<Entry>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let h2 = request.version() == Version::HTTP_2;
        let target = &destination.target;
        let mut pooled = entry.take(h2);
        let mut again = false;
        loop {
            let (connection, new) = match pooled.take() {
                Some(connection) => (connection, false),
                // Another idle one might end as the first did.
                None if again && !h2 => (self.open(destination, h2, entry).await?.enter(entry), true),
                None => Box::pin(self.connection(destination, h2, entry)).await?,
            };
            let (head, body) = request.into_parts();
            let idempotent = head.method.is_idempotent() && matches!(&connection, Connection::Http1(connection) if connection.is_used());
            let copy = (!new && !again && body.is_end_stream() && (h2 || idempotent)).then(|| head.clone());
            match connection.send(Request::from_parts(head, body), target, entry).await {
                Ok(response) => return Ok(response),
                // It was about to close, as after a GOAWAY, and is known as closed by now.
                Err(Failure::Unsent(unsent, _)) if !new => request = *unsent,
                Err(Failure::Sent(error))
                    if let Some(head) = copy
                        && (connection::is_unprocessed(&error) || (idempotent && connection::is_broken_off(&error) && !is_left(&head))) =>
                {
                    again = true;
                    request = Request::from_parts(head, empty());
                }
                Err(failure) => return Err(failure.into_error(target)),
            }
        }
    }

    /// A new connection or what has come free while it was being opened; whether it is new.
    async fn connection(
        self: &Arc<Self>,
        destination: &Destination,
        h2: bool,
        entry: &Arc<Entry>,
    ) -> Result<(Connection, bool), UpstreamError> {
        let share = h2 && entry.speaks() != Some(Protocol::Http1);
        let pooled = || entry.take(h2).map(|connection| (connection, false));
        self.wait(destination, h2, share, entry, pooled, |opened| (opened.enter(entry), true)).await
    }

    /// Until `look` finds something or there is a new connection to `settle`. One that is needed no more is opened to its end all the same, for whoever comes next:
    /// on a busy destination none would ever be done else, and each request would begin another.
    async fn wait<T>(
        self: &Arc<Self>,
        destination: &Destination,
        h2: bool,
        share: bool,
        entry: &Arc<Entry>,
        look: impl Fn() -> Option<T>,
        settle: impl FnOnce(Opened) -> T,
    ) -> Result<T, UpstreamError> {
        let waiting = entry.wait(share);
        let mut ours = None;
        let (opened, opening) = loop {
            let woken = waiting.woken();
            if let Some(found) = look() {
                ours.map(|ours| tokio::spawn(keep(ours)));
                return Ok(found);
            }
            if let Some(opening) = waiting.open() {
                let new = Box::pin(self.clone().open_for(opening, destination.clone(), h2));
                match ours {
                    None => ours = Some(new),
                    Some(_) => drop(tokio::spawn(keep(new))),
                }
            }
            tokio::select! {
                biased;
                opened = async { if let Some(ours) = &mut ours { ours.await } else { pending().await } } => break opened,
                () = woken => {}
            }
        };
        // In this order, or one opening would be missing for a moment and be begun by another.
        let settled = opened.map(settle);
        drop(waiting);
        drop(opening);
        settled
    }

    async fn open_for(self: Arc<Self>, opening: Opening, destination: Destination, h2: bool) -> (Result<Opened, UpstreamError>, Opening) {
        (self.open(&destination, h2, opening.entry()).await, opening)
    }

    async fn open(&self, destination: &Destination, h2: bool, entry: &Entry) -> Result<Opened, UpstreamError> {
        // On the heap, since it is many times larger than what a request over a pooled connection needs.
        match Box::pin(self.handshakes(destination, h2, entry)).await {
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
    async fn handshakes(&self, destination: &Destination, h2: bool, entry: &Entry) -> Result<(Opened, Protocol), UpstreamError> {
        let target = &destination.target;
        let (tcp, _) = tokio::try_join!(self.dialer.connect(target, destination.addr), self.tls.ready())?;
        let offer = if h2 { Offer::Any } else { Offer::Http1 };
        let (stream, protocol) = self.tls.connect(tcp, target, offer).await?;
        let opened = connection::open(stream, protocol, entry.limit.clone()).await.map_err(|error| http_error(target, error))?;
        Ok((opened, protocol))
    }

    fn entry(&self, destination: &Destination) -> Arc<Entry> {
        self.sweeping.call_once(|| drop(tokio::spawn(sweep(Arc::downgrade(&self.pool)))));
        self.pool.entry(destination)
    }
}

/// For whoever comes next, since whoever began it needs it no more.
async fn keep(opening: impl Future<Output = (Result<Opened, UpstreamError>, Opening)>) {
    match opening.await {
        (Ok(opened), opening) => drop(opening.entry().keep(opened)),
        (Err(error), _) => tracing::debug!(%error, "upstream connection that nobody waits for"),
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

impl Failure {
    fn into_error(self, target: &Target) -> UpstreamError {
        let (Self::Unsent(_, error) | Self::Sent(error)) = self;
        http_error(target, error)
    }
}

/// Whether the child of this request no longer waits, so that the server's hanging up is no more than an answer to that.
fn is_left(head: &Parts) -> bool {
    head.extensions.get().is_some_and(Farewell::is_said)
}

fn http_error(target: &Target, source: hyper::Error) -> UpstreamError {
    let target = target.clone();
    if source.is_user() { UpstreamError::RequestBody { target, source } } else { UpstreamError::Http { target, source } }
}
