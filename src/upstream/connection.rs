//! HTTP on one verified connection: opening it, sending one request, giving back its response.

use super::{
    Body, BoxError, InsertStream, Inserts, Protocol, TrailerBody, adapt, empty, expect, farewell::Child, last_words::LastWords,
    outbound::Outbound, pool::Entry, queue::Queue, read_ahead::ReadAhead, whole::Whole,
};
use crate::host::Target;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::runtime::Handle;
use tokio_rustls::client::TlsStream;

/// The largest header section accepted from a server, in HTTP/2 in octets as RFC 9113 §6.5.2 counts them: eight times hyper's default, since services
/// send long `content-security-policy` and `set-cookie` fields. In HTTP/1.1 also what is read of a body at once: more would not be in the core's
/// own cache any longer when it is scrubbed and encrypted.
const MAX_HEAD: usize = 128 * 1024;

/// Header fields of a response in HTTP/1.1; hyper's default of 100 is less than some servers send.
const MAX_HEADERS: usize = 256;

/// Octets in flight towards us per response (RFC 9113 §6.9.2). One that nobody reads holds no more than this.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// Requests of ours on one connection; more get another. The least that RFC 9113 §6.5.2 recommends servers to allow.
const MAX_STREAMS: usize = 100;

/// Room for all of them, so that responses that nobody reads never keep others on their connection from arriving.
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;

/// How often, and how long, the settings of a new HTTP/2 connection are looked for; a server sends them first of all (RFC 9113 §3.4).
const SETTINGS_LOOK: Duration = Duration::from_millis(5);
const SETTINGS_LIMIT: Duration = Duration::from_secs(5);

/// A verified connection that can take one request now.
pub enum Connection {
    Http1(Http1),
    H2(http2::SendRequest<Body>, Stream),
}

/// A connection as the handshake left it.
pub enum Opened {
    Http1(Http1),
    H2(H2),
}

/// Never locked: the mutex only makes it `Sync`, as bodies have to be.
type Driver = Mutex<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>;

/// An HTTP/1.1 connection. It has no task of its own: whoever waits for the response drives it. So request, response and connection wake one
/// task, and the child gets head and first octets of the body in one write.
pub struct Http1 {
    sender: http1::SendRequest<TrailerBody<Body>>,
    inserts: Inserts,
    child: Child,
    /// Whether it has had a response.
    used: bool,
    /// `None` once it has ended.
    driver: Option<Driver>,
}

/// An HTTP/2 connection that requests share.
#[derive(Clone)]
pub struct H2 {
    sender: http2::SendRequest<Body>,
    /// Driven by a task of its own; `None` once it has ended. It knows the server's settings.
    connection: Arc<Mutex<Option<H2Connection>>>,
    streams: Arc<Streams>,
}

/// How many streams a server has allowed at last. Its next connection is taken to allow as many until it has said: what is beyond would be refused, and
/// cannot be sent again if it has a body.
pub struct Limit {
    last: AtomicUsize,
    /// Of requests that may share a connection.
    pub queue: Queue,
}

/// The streams in use on one connection.
struct Streams {
    count: AtomicUsize,
    limit: Arc<Limit>,
}

type H2Connection = http2::Connection<TokioIo<LastWords<TlsStream<ReadAhead<Outbound>>>>, Body, TokioExecutor>;

/// One stream's place among those the server allows; free again when dropped.
pub struct Stream(Arc<Streams>);

/// Why a request has no response.
pub enum Failure {
    /// Not a byte of it was sent, so it may go on another connection.
    Unsent(Box<Request<Body>>, hyper::Error),
    Sent(hyper::Error),
}

/// A response body as it arrives, trailers included.
pub struct ResponseBody {
    inner: Whole,
    /// Whether `inner` said so.
    ended: bool,
    /// Told at the next poll: whoever passes the body on drops what it has not written yet when it hears of an error.
    broken: Option<BoxError>,
    carrier: Option<Carrier>,
}

/// What a response body arrives by.
enum Carrier {
    /// Driven by whoever reads the body, and back to its entry, if it may be used again, once that has been read to the end.
    Http1(Http1, Option<Arc<Entry>>),
    H2 {
        _place: Stream,
    },
}

/// A request body that shows by what it holds that it has not been sent yet.
struct Sending {
    body: Body,
    _until_sent: Arc<()>,
}

/// Starts HTTP on a TLS connection.
pub async fn open(stream: TlsStream<ReadAhead<Outbound>>, protocol: Protocol, limit: Arc<Limit>) -> hyper::Result<Opened> {
    let stream = LastWords::new(stream);
    match protocol {
        Protocol::Http1 => {
            let (child, inserts) = (stream.child(), Inserts::default());
            let io = TokioIo::new(InsertStream::new(stream, inserts.clone()));
            let mut builder = http1::Builder::new();
            builder
                .preserve_header_case(true)
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_HEADERS)
                // To be mended before they are passed on (RFC 9112 §5.1, §5.2).
                .allow_spaces_after_header_name_in_responses(true)
                .allow_obsolete_multiline_headers_in_responses(true);
            let (sender, connection) = builder.handshake(io).await?;
            let driver: Driver = Mutex::new(Box::pin(connection.with_upgrades()));
            Ok(Opened::Http1(Http1 { sender, inserts, child, used: false, driver: Some(driver) }))
        }
        Protocol::H2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_header_list_size(MAX_HEAD as u32)
                .initial_max_send_streams(limit.last())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW);
            let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
            let connection = Arc::new(Mutex::new(Some(connection)));
            tokio::spawn(drive(connection.clone()));
            let streams = Arc::new(Streams { count: AtomicUsize::new(0), limit });
            Ok(Opened::H2(H2 { sender, connection, streams }))
        }
    }
}

async fn drive(connection: Arc<Mutex<Option<H2Connection>>>) {
    let end = poll_fn(|cx| {
        let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        let end = connection.as_mut().map_or(Poll::Ready(Ok(())), |driven| Pin::new(driven).poll(cx));
        if end.is_ready() {
            *connection = None;
        }
        end
    });
    log_end(end.await);
}

fn log_end(end: hyper::Result<()>) {
    if let Err(error) = end {
        tracing::debug!(%error, "upstream connection");
    }
}

impl Limit {
    fn last(&self) -> usize {
        self.last.load(Ordering::Relaxed).max(1)
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self { last: AtomicUsize::new(MAX_STREAMS), queue: Queue::default() }
    }
}

impl Opened {
    /// For the request that it was opened for; others may share it.
    pub fn enter(self, entry: &Entry) -> Connection {
        match self {
            Self::Http1(connection) => Connection::Http1(connection),
            Self::H2(shared) => {
                let first = shared.enter();
                entry.share(shared);
                first
            }
        }
    }
}

impl H2 {
    /// A place for one more request, unless the server's limit is reached.
    pub fn lease(&self) -> Option<Connection> {
        let limit = self.limit();
        let free = |streams: usize| (streams < limit).then_some(streams + 1);
        self.streams.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Connection::H2(self.sender.clone(), Stream(self.streams.clone())))
    }

    /// A place whatever the limit: hyper sends the request once the server allows it.
    pub fn enter(&self) -> Connection {
        self.streams.count.fetch_add(1, Ordering::Relaxed);
        Connection::H2(self.sender.clone(), Stream(self.streams.clone()))
    }

    /// How many streams the server (RFC 9113 §5.1.2) and we allow at once.
    fn limit(&self) -> usize {
        let Some(limit) = self.ask(H2Connection::current_max_send_streams) else { return 0 };
        self.streams.limit.last.store(limit.min(MAX_STREAMS), Ordering::Relaxed);
        limit.min(MAX_STREAMS)
    }

    /// `None` once the connection has ended.
    fn ask<T>(&self, question: impl FnOnce(&H2Connection) -> T) -> Option<T> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(question)
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the server has said so far that it takes extended CONNECT (RFC 8441 §3).
    pub fn takes_connect(&self) -> bool {
        self.ask(H2Connection::is_extended_connect_protocol_enabled).unwrap_or(false)
    }

    /// On a new connection: a place once the server has said that it takes extended CONNECT, or `None` if it does not in time. hyper does not tell
    /// when the server's settings have come.
    pub async fn enter_for_connect(&self) -> Option<Connection> {
        for _ in 0..SETTINGS_LIMIT.div_duration_f32(SETTINGS_LOOK) as usize {
            if self.takes_connect() {
                return Some(self.enter());
            }
            tokio::time::sleep(SETTINGS_LOOK).await;
        }
        None
    }

    pub fn is_unused(&self) -> bool {
        self.streams.count.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.limit.queue.wake();
    }
}

impl Connection {
    /// Sends one request. An HTTP/1.1 connection goes (back) to `entry` once its response has been read to the end.
    pub async fn send(self, mut request: Request<Body>, target: &Target, entry: &Arc<Entry>) -> Result<Response<ResponseBody>, Failure> {
        match self {
            Self::Http1(connection) => {
                adapt::to_http1(&mut request, target);
                connection.send(request, entry).await
            }
            Self::H2(mut sender, stream) => {
                adapt::to_h2(&mut request, target);
                if request.body().is_end_stream() {
                    request = request.map(|_| empty());
                }
                let response = sender.try_send_request(request).await?;
                Ok(with_body(response, Some(Carrier::H2 { _place: stream })))
            }
        }
    }
}

impl Http1 {
    /// Whether it can take a request; notices what the server has sent or closed meanwhile.
    pub fn is_ready(&mut self) -> bool {
        !self.has_ended(&mut Context::from_waker(Waker::noop())) && self.sender.is_ready()
    }

    pub fn is_used(&self) -> bool {
        self.used
    }

    async fn send(mut self, request: Request<Body>, entry: &Arc<Entry>) -> Result<Response<ResponseBody>, Failure> {
        let (request, expectation) = expect::hold(request);
        let sending = Arc::new(());
        let unsent_body = Arc::downgrade(&sending);
        self.child.asks(request.extensions().get().cloned().unwrap_or_default(), unsent_body.clone());
        let request = match request.body().is_end_stream() {
            true => {
                drop(sending);
                request
            }
            false => request.map(|body| Sending { body, _until_sent: sending }.boxed()),
        };
        let mut response = pin!(self.sender.try_send_request(request.map(|body| self.inserts.trailers_of(body))));
        let response = poll_fn(|cx| {
            self.has_ended(cx);
            response.as_mut().poll(cx)
        });
        let response = response.await?;
        self.used = true;
        let unsent = expectation.is_some_and(|expectation| expectation.answered(response.status()));
        let carrier = if unsent {
            Some(Carrier::Http1(self, None))
        } else if response.status() == StatusCode::SWITCHING_PROTOCOLS || unsent_body.strong_count() > 0 {
            // It has to go on whether or not anybody reads the response.
            self.drive(entry.clone());
            None
        } else {
            Some(Carrier::Http1(self, Some(entry.clone())))
        };
        Ok(with_body(response, carrier))
    }

    /// In a task of its own until request and response are whole, and then back to `entry`; a connection that closes or was upgraded never gets there.
    fn drive(mut self, entry: Arc<Entry>) {
        // There is no runtime, and no use for the connection, when the last bodies are dropped after it.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let ready = poll_fn(|cx| match self.has_ended(cx) {
                true => Poll::Ready(false),
                false => self.sender.poll_ready(cx).map(|ready| ready.is_ok()),
            });
            if ready.await && self.child.forget() {
                entry.put(self);
            }
        });
    }

    fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(driver) = &mut self.driver
            && let Poll::Ready(end) = driver.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll(cx)
        {
            log_end(end);
            self.driver = None;
        }
        self.driver.is_none()
    }
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

/// Whether the connection ended in place of a response, by the server's doing and not by an answer that is no HTTP.
pub fn is_broken_off(error: &hyper::Error) -> bool {
    !(error.is_parse() || error.is_user())
}

impl<B: Into<Body>> From<TrySendError<Request<B>>> for Failure {
    fn from(mut error: TrySendError<Request<B>>) -> Self {
        match error.take_message() {
            Some(request) => Self::Unsent(Box::new(request.map(B::into)), error.into_error()),
            None => Self::Sent(error.into_error()),
        }
    }
}

fn with_body(response: Response<Incoming>, carrier: Option<Carrier>) -> Response<ResponseBody> {
    let version = response.version();
    response.map(|body| ResponseBody { inner: Whole::new(body, version), ended: false, broken: None, carrier })
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut frame = Pin::new(&mut this.inner).poll_frame(cx);
        if frame.is_pending()
            && let Some(Carrier::Http1(connection, _)) = &mut this.carrier
        {
            connection.has_ended(cx);
            frame = Pin::new(&mut this.inner).poll_frame(cx);
        }
        if let Poll::Ready(frame) = &frame {
            this.ended = frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
        }
        if let Poll::Ready(Some(Err(error))) = frame {
            this.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let whole = self.ended || self.inner.is_end_stream();
        if let Some(Carrier::Http1(mut connection, Some(entry))) = self.carrier.take()
            && whole
        {
            match connection.is_ready() {
                true if !connection.child.forget() => {}
                true => entry.put(connection),
                false => connection.drive(entry),
            }
        }
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
