//! The server side of one opened connection, HTTP/1.1 or HTTP/2.

use std::{
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use http::Response;

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncBufReadExt;

use super::{
    downstream::{Downstream, Ending, Watch, Watched},
    forward::forward,
};
use crate::{
    proxy::{Context, tls::Opened},
    route::HostRoutes,
    upstream::{Body, BoxError, Destination, Farewell, InsertStream, Inserts, Protocol, TrailerBody, UpstreamError},
};

/// Octets of a request head, for HTTP/2 as RFC 9113 §6.5.2 counts them: fields of 64 KiB, which some APIs take, with room for the rest.
/// This bounds a connection's memory.
const MAX_HEAD: usize = 128 * 1024;

/// Header fields of a request; hyper's default of 100 is less than some clients send.
const MAX_HEADERS: usize = 256;

/// From one request's end to the next one's head (hyper has one limit for both). Longer than servers keep idle connections (600 s at most is usual),
/// so that the child sees our close no sooner than the server's own.
const IDLE_LIMIT: Duration = Duration::from_secs(900);

/// Octets in flight towards us per HTTP/2 stream and connection (RFC 9113 §6.9.2): uploads are not slowed by the default of 64 KiB, and a
/// connection with a stalled upstream holds no more than this.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// Octets kept per HTTP/2 stream for a child that does not read; hyper's default of 400 KiB times all streams would be too much.
const SEND_BUFFER: usize = 64 * 1024;

/// Requests at once on an HTTP/2 connection; the least RFC 9113 §6.5.2 recommends is 100.
const MAX_STREAMS: u32 = 256;

/// Streams reset before they were served, and by our own errors, until the connection is closed (CVE-2023-44487).
const MAX_RESETS: usize = 64;

/// What may happen to the requests of a connection.
pub enum Rules {
    /// Routed by path; what no route claims goes on unchanged.
    Inject(HostRoutes),
    /// All go on unchanged.
    Inspect,
}

/// What the requests of one connection share.
pub struct Session {
    pub destination: Destination,
    pub rules: Rules,
    pub context: Arc<Context>,
    pub protocol: Protocol,
    /// Told to the first request instead of trying again at once.
    pub failure: Mutex<Option<UpstreamError>>,
    /// How the child's connection is to end.
    pub ending: Ending,
    /// Said by a child that speaks HTTP/1.1 and has nothing more to say.
    pub farewell: Farewell,
    /// Sees such a child leave.
    pub watch: Watch,
    /// What goes to the child besides what hyper writes, in HTTP/1.1.
    pub inserts: Inserts,
}

/// How an opened connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Served,
    /// Broken off without an octet, and without TLS's own farewell (RFC 8446 §6.1): some clients look at the certificate only now.
    Unused,
}

/// Serves requests until the child or the protocol ends the connection.
pub async fn serve(opened: Opened, destination: Destination, rules: Rules, context: Arc<Context>) -> Ended {
    let Opened { mut stream, protocol, failure } = opened;
    // Also keeps what a connection needs from being made for one that is opened in reserve.
    match tokio::time::timeout(IDLE_LIMIT, stream.fill_buf()).await {
        Ok(Ok([_, ..])) => {}
        Ok(Err(error)) if error.kind() != io::ErrorKind::InvalidData => return Ended::Unused,
        Ok(Ok([]) | Err(_)) | Err(_) => return Ended::Served,
    }
    let (ending, farewell, inserts) = (Ending::default(), Farewell::default(), Inserts::default());
    let downstream = Downstream::new(stream, ending.clone(), farewell.clone());
    let failure = Mutex::new(failure);
    let watch = downstream.watch();
    let session = Arc::new(Session {
        destination,
        rules,
        context,
        protocol,
        failure,
        ending: ending.clone(),
        farewell,
        watch: watch.clone(),
        inserts: inserts.clone(),
    });
    // On the heap for as long as there is a request: hyper would keep room for it in every idle HTTP/1.1 connection, and move it with every
    // HTTP/2 stream.
    let forward = move |request| Box::pin(forward(session.clone(), request));
    let follow = |ended: &hyper::Result<()>| {
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
            ending.follow(error);
        }
    };
    // The connection outlives its last poll, so that its socket closes as it was told.
    match protocol {
        Protocol::Http1 => {
            let stream = InsertStream::new(downstream, inserts.clone());
            let service = service_fn(move |request| watched(forward(request), watch.clone(), inserts.clone()));
            follow(&pin!(http1().serve_connection(TokioIo::new(stream), service).with_upgrades()).await);
        }
        // hyper reads all the time, and knows.
        Protocol::H2 => follow(&Box::pin(http2().serve_connection(TokioIo::new(downstream), service_fn(forward))).as_mut().await),
    }
    Ended::Served
}

/// A request whose child leaves ends at the server, too, as if the child had been connected to it.
async fn watched(
    mut forwarding: Pin<Box<impl Future<Output = Result<Response<Body>, BoxError>>>>,
    watch: Watch,
    inserts: Inserts,
) -> Result<Response<TrailerBody<Watched<Body>>>, BoxError> {
    let response = std::future::poll_fn(|context| match forwarding.as_mut().poll(context) {
        Poll::Pending => watch.poll_left(context).map(|left| Err(left.into())),
        response => response,
    });
    Ok(response.await?.map(|body| inserts.trailers_of(Watched { body, watch })))
}

pub fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .preserve_header_case(true)
        .half_close(true)
        .auto_date_header(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_LIMIT);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .auto_date_header(false)
        .enable_connect_protocol()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .timer(TokioTimer::new());
    builder
}
