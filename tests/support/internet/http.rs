//! Origins that speak HTTP/1.1 and HTTP/2 and write down what they are asked.

use super::{Request, Shared, sockets::each};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, UPGRADE},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use std::{
    convert::Infallible,
    net::TcpListener,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy, split},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

/// Lines of the answer to `/large`, 8 MiB: more than the buffers of two connections hold.
const LARGE: usize = 8 * 1024 * 1024 / 11;

type Answer = Response<BoxBody<Bytes, Infallible>>;

pub fn serve_plain(listener: TcpListener, shared: Arc<Shared>) {
    each(listener, move |stream| serve(stream, String::new(), false, shared.clone()));
}

pub fn serve_tls(listener: TcpListener, config: Arc<ServerConfig>, shared: Arc<Shared>) {
    let acceptor = TlsAcceptor::from(config);
    each(listener, move |stream| {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let session = stream.get_ref().1;
            let sni = session.server_name().unwrap_or_default().to_owned();
            let http2 = session.alpn_protocol() == Some(b"h2");
            serve(stream, sni, http2, shared).await;
        }
    });
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, sni: String, http2: bool, shared: Arc<Shared>) {
    let io = TokioIo::new(Logged { io, sni: sni.clone(), shared: shared.clone() });
    let service = service_fn(move |request| answer(request, sni.clone(), shared.clone()));
    let _ = if http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        http1::Builder::new().serve_connection(io, service).with_upgrades().await
    };
}

async fn answer(mut request: hyper::Request<Incoming>, sni: String, shared: Arc<Shared>) -> Result<Answer, hyper::Error> {
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let authority = head.uri.authority().map(ToString::to_string).or_else(|| head.headers.get(HOST).map(text)).unwrap_or_default();
    let seen = Request {
        sni,
        authority,
        method: head.method.to_string(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: format!("{:?}", head.version),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: body.collect().await?.to_bytes().to_vec(),
    };
    let path = head.uri.path().to_owned();
    shared.requests.lock().unwrap().push(seen.clone());
    Ok(match (path.as_str(), upgrade) {
        (_, Some(upgrade)) => switch(upgrade, &head.headers),
        ("/events", None) => events(shared),
        ("/redirect", None) => {
            Response::builder().status(302).header("location", "https://other.test/").body(Full::default().boxed()).unwrap()
        }
        ("/headers", None) => plain(seen.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()),
        ("/large", None) => plain("large body\n".repeat(LARGE)),
        ("/cut", None) => cut(),
        _ => plain(format!("{} bytes for {}\n", seen.body.len(), seen.authority)),
    })
}

fn plain(text: String) -> Answer {
    Response::new(Full::from(text).boxed())
}

/// Fewer octets than announced, and then the end.
fn cut() -> Answer {
    let mut answer = plain("only this".to_owned());
    answer.headers_mut().insert(CONTENT_LENGTH, 100_000.into());
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _ = sender.send(Bytes::from_static(b"only this")).await;
        // What is there is sent once the body is found to have no more yet.
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    });
    *answer.body_mut() = Chunks(receiver).boxed();
    answer
}

/// Switches to whatever protocol the client named and echoes its bytes.
fn switch(upgrade: hyper::upgrade::OnUpgrade, headers: &hyper::HeaderMap) -> Answer {
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut reader, mut writer) = split(TokioIo::new(upgraded));
        let _ = copy(&mut reader, &mut writer).await;
    });
    let mut answer = plain(String::new());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, "upgrade".parse().unwrap());
    answer.headers_mut().insert(UPGRADE, headers[UPGRADE].clone());
    answer
}

/// Writes down what is read.
struct Logged<T> {
    io: T,
    sni: String,
    shared: Arc<Shared>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Logged<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.shared.received.lock().unwrap().push((self.sni.clone(), buffer.filled()[before..].to_vec()));
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Logged<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// One event at once; the next, which is the last, only when the test says so.
fn events(shared: Arc<Shared>) -> Answer {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _ = sender.send(Bytes::from_static(b"data: first\n\n")).await;
        shared.next_event.notified().await;
        let _ = sender.send(Bytes::from_static(b"data: last\n\n")).await;
    });
    let mut answer = Response::new(Chunks(receiver).boxed());
    answer.headers_mut().insert(CONTENT_TYPE, "text/event-stream".parse().unwrap());
    answer
}

struct Chunks(mpsc::Receiver<Bytes>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}
