//! HTTP on one verified connection: opening it, sending one request, giving back its response.

use super::{Body, Protocol, adapt, pool::Entry};
use crate::host::Target;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The largest header section accepted from a server, in octets as RFC 9113 §6.5.2 counts them: four times hyper's default, since services
/// send long `content-security-policy` and `set-cookie` fields.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// Octets in flight towards us per response (RFC 9113 §6.9.2). One that nobody reads holds no more than this.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// Requests of ours on one connection; more get another. The least that RFC 9113 §6.5.2 recommends servers to allow.
const MAX_STREAMS: usize = 100;

/// Room for all of them, so that responses that nobody reads never keep others on their connection from arriving.
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;

/// A verified connection that can take one request now.
pub enum Connection {
    Http1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>, Stream),
}

/// A connection as the handshake left it.
pub enum Opened {
    Http1(http1::SendRequest<Body>),
    H2(H2),
}

/// An HTTP/2 connection that requests share.
#[derive(Clone)]
pub struct H2 {
    sender: http2::SendRequest<Body>,
    load: Arc<Load>,
}

#[derive(Debug)]
struct Load {
    streams: AtomicUsize,
    /// How many the server (RFC 9113 §5.1.2) and we allow at once.
    limit: AtomicUsize,
}

/// One stream's place among those the server allows; free again when dropped.
#[derive(Debug)]
pub struct Stream(Arc<Load>);

/// Why a request has no response.
pub enum Failure {
    /// Not a byte of it was sent, so it may go on another connection.
    Unsent(Box<Request<Body>>, hyper::Error),
    Sent(hyper::Error),
}

/// A response body as it arrives, trailers included.
#[derive(Debug)]
pub struct ResponseBody {
    inner: Incoming,
    _stream: Option<Stream>,
}

/// Starts HTTP on a TLS connection; a task of its own drives it until it closes.
pub async fn open(stream: TlsStream<TcpStream>, protocol: Protocol) -> hyper::Result<Opened> {
    let io = TokioIo::new(stream);
    match protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::Builder::new().preserve_header_case(true).handshake(io).await?;
            tokio::spawn(async move { log_end(connection.with_upgrades().await) });
            sender.ready().await?;
            Ok(Opened::Http1(sender))
        }
        Protocol::H2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_header_list_size(MAX_HEADER_LIST)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW);
            let (sender, connection) = builder.handshake(io).await?;
            let limit = connection.current_max_send_streams().min(MAX_STREAMS);
            let load = Arc::new(Load { streams: AtomicUsize::new(0), limit: AtomicUsize::new(limit) });
            let seen = load.clone();
            tokio::spawn(async move {
                let mut connection = pin!(connection);
                let driven = poll_fn(|cx| {
                    seen.limit.store(connection.current_max_send_streams().min(MAX_STREAMS), Ordering::Relaxed);
                    connection.as_mut().poll(cx)
                });
                log_end(driven.await);
            });
            Ok(Opened::H2(H2 { sender, load }))
        }
    }
}

fn log_end(end: hyper::Result<()>) {
    if let Err(error) = end {
        tracing::debug!(%error, "upstream connection");
    }
}

impl H2 {
    /// A place for one more request, unless the server's limit is reached.
    pub fn lease(&self) -> Option<Connection> {
        let limit = self.load.limit.load(Ordering::Relaxed);
        let free = |streams: usize| (streams < limit).then_some(streams + 1);
        self.load.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Connection::H2(self.sender.clone(), Stream(self.load.clone())))
    }

    /// A place whatever the limit: hyper sends the request once the server allows it.
    pub fn enter(&self) -> Connection {
        self.load.streams.fetch_add(1, Ordering::Relaxed);
        Connection::H2(self.sender.clone(), Stream(self.load.clone()))
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub fn is_unused(&self) -> bool {
        self.load.streams.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Sends one request. An HTTP/1.1 connection goes (back) to `entry` once its response has been read to the end.
    pub async fn send(self, mut request: Request<Body>, target: &Target, entry: &Arc<Entry>) -> Result<Response<ResponseBody>, Failure> {
        match self {
            Self::Http1(mut sender) => {
                adapt::to_http1(&mut request, target);
                let response = sender.try_send_request(request).await?;
                put_back(sender, entry.clone());
                Ok(response.map(|inner| ResponseBody { inner, _stream: None }))
            }
            Self::H2(mut sender, stream) => {
                adapt::to_h2(&mut request, target);
                let response = sender.try_send_request(request).await?;
                Ok(response.map(|inner| ResponseBody { inner, _stream: Some(stream) }))
            }
        }
    }
}

/// hyper calls the sender ready again only when request and response are whole; a connection that closes or was upgraded never is.
fn put_back(mut sender: http1::SendRequest<Body>, entry: Arc<Entry>) {
    if sender.is_ready() {
        return entry.put(sender);
    }
    tokio::spawn(async move {
        if sender.ready().await.is_ok() {
            entry.put(sender);
        }
    });
}

/// Whether the server itself said that it did not process the request: it refused the stream, or its orderly GOAWAY left the stream out
/// (RFC 9113 §8.7).
pub fn is_unprocessed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        let reason = error.reason();
        error.is_remote() && (reason == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR)))
    })
}

impl From<TrySendError<Request<Body>>> for Failure {
    fn from(mut error: TrySendError<Request<Body>>) -> Self {
        match error.take_message() {
            Some(request) => Self::Unsent(Box::new(request), error.into_error()),
            None => Self::Sent(error.into_error()),
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
