//! Against real TLS servers on loopback.

use super::*;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use std::{
    convert::Infallible,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::{Context, Poll},
};
use tokio::net::TcpStream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

const NAME: &str = "api.acme.test";

/// A certificate authority of one test.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: tempfile::NamedTempFile,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(pem.path(), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn acceptor(&self, alpn: &[&str], change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    fn upstream(&self) -> Arc<Upstream> {
        let extra_roots = vec![self.pem.path().to_owned()];
        Upstream::new(Options {
            extra_roots,
            connect_timeout: Duration::from_secs(20),
            allow_host_addresses: true,
            named_addresses: Vec::new(),
            proxies: Default::default(),
        })
    }
}

/// What a test server has seen.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Two requests meet at `/meet`, so each is answered only if both are under way at once.
    meeting: Notify,
    met: AtomicUsize,
}

impl Seen {
    fn counts(&self) -> (usize, usize) {
        (self.connections.load(SeqCst), self.requests.load(SeqCst))
    }
}

/// Accepts TLS connections for ever and hands each to `serve`.
async fn listen<F>(acceptor: TlsAcceptor, serve: impl Fn(TlsStream<TcpStream>, Arc<Seen>) -> F + Send + 'static) -> (Destination, Arc<Seen>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let ours = seen.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(tcp).await {
                ours.connections.fetch_add(1, SeqCst);
                tokio::spawn(serve(tls, ours.clone()));
            }
        }
    });
    (Destination { target: Target { host: NAME.parse().unwrap(), port: addr.port() }, addr: Some(addr) }, seen)
}

async fn http1(tls: TlsStream<TcpStream>, seen: Arc<Seen>) {
    let service = service_fn(move |request| answer(request, seen.clone()));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).with_upgrades().await;
}

async fn h2(tls: TlsStream<TcpStream>, seen: Arc<Seen>) {
    let service = service_fn(move |request| answer(request, seen.clone()));
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.max_concurrent_streams(1).serve_connection(TokioIo::new(tls), service).await;
}

async fn answer(mut request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Body>, Infallible> {
    seen.requests.fetch_add(1, SeqCst);
    if request.headers().contains_key(header::UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut byte = [0];
            while io.read_exact(&mut byte).await.is_ok() {
                io.write_all(&[byte[0] ^ 0xff]).await.unwrap();
            }
        });
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("flip"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        return Ok(response);
    }
    match request.uri().path() {
        "/meet" => {
            if seen.met.fetch_add(1, SeqCst) % 2 == 1 {
                seen.meeting.notify_one();
            } else {
                seen.meeting.notified().await;
            }
        }
        "/about" => {
            let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap().to_owned());
            let text = format!("{:?} {} host={host:?}", request.version(), request.uri());
            return Ok(Response::new(full(text.into(), None)));
        }
        _ => {}
    }
    let version = request.version();
    let body = request.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let mut response = Response::new(full(body.to_bytes(), trailers));
    if version == Version::HTTP_11 {
        response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-sum"));
    }
    Ok(response)
}

/// A body of unknown length: data, then trailers if there are any.
struct Frames(std::collections::VecDeque<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

fn full(bytes: Bytes, trailers: Option<HeaderMap>) -> Body {
    Frames([Some(Frame::data(bytes)), trailers.map(Frame::trailers)].into_iter().flatten().collect()).boxed()
}

fn request(version: Version, path: &str, body: Body) -> Request<Body> {
    Request::builder().version(version).method(Method::POST).uri(format!("https://{NAME}{path}")).body(body).unwrap()
}

async fn text(response: Response<ResponseBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// One whole exchange; HTTP/1.1 connections are back in the pool afterwards.
async fn fetch(upstream: &Arc<Upstream>, to: &Destination, version: Version, path: &str) -> Result<String, UpstreamError> {
    let body = text(upstream.exchange(to, request(version, path, empty())).await?).await;
    Ok(body)
}

/// The connection goes back by a task of its own.
async fn until_idle(upstream: &Arc<Upstream>, to: &Destination) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !upstream.entry(to).has_idle() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

async fn refusal(ca: &Ca, acceptor: TlsAcceptor) -> UpstreamError {
    let (to, _) = listen(acceptor, http1).await;
    ca.upstream().protocol(&to, true).await.unwrap_err()
}

#[tokio::test]
async fn bad_certificates_say_why() {
    let ca = Ca::new();
    for (change, reason) in [
        (
            Box::new(|p: &mut CertificateParams| p.not_after = date_time_ymd(2001, 1, 1)) as Box<dyn FnOnce(&mut CertificateParams)>,
            "expired",
        ),
        (Box::new(|p: &mut CertificateParams| p.not_before = date_time_ymd(3001, 1, 1)), "not yet valid"),
        (
            Box::new(|p: &mut CertificateParams| {
                p.subject_alt_names = CertificateParams::new(vec!["evil.test".to_owned()]).unwrap().subject_alt_names
            }),
            "wrong host (it is for evil.test)",
        ),
    ] {
        let error = refusal(&ca, ca.acceptor(&[], change)).await;
        assert_eq!(error.kind(), "upstream-certificate");
        let text = error.to_string();
        assert!(
            text.starts_with("api.acme.test:") && text.ends_with(&format!("the server's certificate does not verify: {reason}")),
            "{text}"
        );
        assert!(!error.hint().is_empty());
    }
    let error = refusal(&ca, Ca::new().acceptor(&[], |_| {})).await;
    assert!(error.to_string().ends_with("does not verify: unknown issuer"), "{error}");
    assert!(error.hint().contains("--upstream-ca"), "{}", error.hint());
}

#[tokio::test]
async fn an_unverified_server_gets_no_request() {
    let ca = Ca::new();
    let (to, seen) = listen(Ca::new().acceptor(&[], |_| {}), http1).await;
    let error = fetch(&ca.upstream(), &to, Version::HTTP_11, "/").await.unwrap_err();
    assert_eq!((error.kind(), seen.counts()), ("upstream-certificate", (0, 0)));
}

#[tokio::test]
async fn bad_extra_roots_are_named() {
    let extra_roots = vec!["/nonexistent/ca.pem".into()];
    let upstream = Upstream::new(Options {
        extra_roots,
        connect_timeout: Duration::from_secs(20),
        allow_host_addresses: true,
        named_addresses: Vec::new(),
        proxies: Default::default(),
    });
    let (to, _) = listen(Ca::new().acceptor(&[], |_| {}), http1).await;
    let error = upstream.protocol(&to, true).await.unwrap_err();
    assert_eq!(error.to_string(), "read /nonexistent/ca.pem: No such file or directory (os error 2)");
}

#[tokio::test]
async fn what_is_no_connection_says_so() {
    let ca = Ca::new();
    let upstream = ca.upstream();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = Destination { target: Target { host: NAME.parse().unwrap(), port: closed.port() }, addr: Some(closed) };
    let error = upstream.protocol(&to, true).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), ("upstream-connect", format!("connect to {closed}: Connection refused (os error 111)")));

    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = plain.local_addr().unwrap();
    tokio::spawn(async move { plain.accept().await.unwrap().0.write_all(b"HTTP/1.1 400 no TLS here\r\n\r\n").await });
    let to = Destination { addr: Some(addr), ..to };
    assert_eq!(upstream.protocol(&to, true).await.unwrap_err().kind(), "upstream-tls");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Destination { addr: silent.local_addr().ok(), ..to };
    let hasty = Upstream::new(Options {
        extra_roots: Vec::new(),
        connect_timeout: Duration::from_millis(1),
        allow_host_addresses: true,
        named_addresses: Vec::new(),
        proxies: Default::default(),
    });
    assert!(matches!(hasty.protocol(&to, true).await, Err(UpstreamError::Timeout { .. } | UpstreamError::Roots(_))));
}

#[tokio::test]
async fn http1_connections_are_used_again() {
    let ca = Ca::new();
    let (to, seen) = listen(ca.acceptor(&["h2", "http/1.1"], |_| {}), http1).await;
    let upstream = ca.upstream();
    assert_eq!(upstream.protocol(&to, false).await.unwrap(), Protocol::Http1);
    for _ in 0..3 {
        let about = fetch(&upstream, &to, Version::HTTP_11, "/about?q").await.unwrap();
        assert_eq!(about, format!("HTTP/1.1 /about?q host=Some(\"{}\")", to.target));
        until_idle(&upstream, &to).await;
    }
    assert_eq!(seen.counts(), (1, 3));
    // Not while it is busy, though: the response's body has not been read.
    let unread = upstream.exchange(&to, request(Version::HTTP_11, "/", full(vec![0; 1 << 20].into(), None))).await.unwrap();
    fetch(&upstream, &to, Version::HTTP_11, "/").await.unwrap();
    assert_eq!(seen.counts(), (2, 5));
    drop(unread);
    // Nor after its time.
    until_idle(&upstream, &to).await;
    upstream.pool.sweep(Instant::now() + Duration::from_secs(91));
    assert!(!upstream.entry(&to).has_idle());
}

/// Where connections come back while others are being opened, none of those is in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_many_connections_are_opened_as_are_waited_for() {
    const CLIENTS: usize = 16;
    let ca = Ca::new();
    for (alpn, version) in [(&["http/1.1"], Version::HTTP_11), (&["h2"], Version::HTTP_2)] {
        let acceptor = ca.acceptor(alpn, |_| {});
        let (to, seen) = if version == Version::HTTP_2 { listen(acceptor, h2).await } else { listen(acceptor, http1).await };
        let upstream = ca.upstream();
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            let (upstream, to) = (upstream.clone(), to.clone());
            clients.spawn(async move {
                upstream.protocol(&to, version == Version::HTTP_2).await.unwrap();
                for _ in 0..50 {
                    fetch(&upstream, &to, version, "/about").await.unwrap();
                }
            });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        assert_eq!(seen.requests.load(SeqCst), CLIENTS * 50);
        assert!(seen.connections.load(SeqCst) <= CLIENTS, "{alpn:?}: {:?}", seen.counts());
    }
}

#[tokio::test]
async fn h2_requests_share_a_connection_up_to_the_servers_limit() {
    let ca = Ca::new();
    let (to, seen) = listen(ca.acceptor(&["h2", "http/1.1"], |_| {}), h2).await;
    let upstream = ca.upstream();
    let (one, two) = tokio::join!(upstream.protocol(&to, true), upstream.protocol(&to, true));
    assert_eq!((one.unwrap(), two.unwrap()), (Protocol::H2, Protocol::H2));
    for _ in 0..3 {
        let about = fetch(&upstream, &to, Version::HTTP_2, "/about").await.unwrap();
        assert_eq!(about, format!("HTTP/2.0 https://{}/about host=None", to.target));
    }
    assert_eq!(seen.counts(), (1, 3));
    let meet = || fetch(&upstream, &to, Version::HTTP_2, "/meet");
    let (one, two) = tokio::join!(meet(), meet());
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(seen.counts(), (2, 5));
}

#[tokio::test]
async fn h2_falls_back_to_what_the_server_speaks() {
    let ca = Ca::new();
    let (to, seen) = listen(ca.acceptor(&["http/1.1"], |_| {}), http1).await;
    let upstream = ca.upstream();
    assert_eq!(upstream.protocol(&to, true).await.unwrap(), Protocol::Http1);
    assert!(fetch(&upstream, &to, Version::HTTP_2, "/about").await.unwrap().starts_with("HTTP/1.1 /about host=Some"));
    assert_eq!(seen.counts(), (1, 1));
}

#[tokio::test]
async fn large_bodies_and_trailers_pass_both_ways() {
    let ca = Ca::new();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    for (version, serve_h2) in [(Version::HTTP_11, false), (Version::HTTP_2, true)] {
        let acceptor = ca.acceptor(if serve_h2 { &["h2"] } else { &["http/1.1"] }, |_| {});
        let (to, _) = if serve_h2 { listen(acceptor, h2).await } else { listen(acceptor, http1).await };
        let sent = Bytes::from(vec![b'x'; 1 << 20]);
        let mut request = request(version, "/", full(sent.clone(), Some(trailers.clone())));
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        request.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-sum"));
        let response = ca.upstream().exchange(&to, request).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers(), Some(&trailers), "{version:?}");
        assert_eq!(body.to_bytes(), sent, "{version:?}");
    }
}

/// Answers one request per connection, then closes without a word.
async fn one_answer(mut tls: TlsStream<TcpStream>, seen: Arc<Seen>) {
    if read_head(&mut tls).await {
        seen.requests.fetch_add(1, SeqCst);
        let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    }
}

/// Answers the first request of a connection and hangs up on having read the second.
async fn hangs_up(mut tls: TlsStream<TcpStream>, seen: Arc<Seen>) {
    while read_head(&mut tls).await {
        if seen.requests.fetch_add(1, SeqCst) == 1 {
            return;
        }
        let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    }
}

async fn read_head(tls: &mut TlsStream<TcpStream>) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tls.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_used() {
    let ca = Ca::new();
    let (to, seen) = listen(ca.acceptor(&[], |_| {}), one_answer).await;
    let upstream = ca.upstream();
    for n in 1..=10 {
        fetch(&upstream, &to, Version::HTTP_11, "/").await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), async {
            while upstream.entry(&to).has_idle() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(seen.counts(), (n, n));
    }
}

#[tokio::test]
async fn a_request_that_was_read_is_not_sent_again() {
    let ca = Ca::new();
    let (to, seen) = listen(ca.acceptor(&[], |_| {}), hangs_up).await;
    let upstream = ca.upstream();
    fetch(&upstream, &to, Version::HTTP_11, "/").await.unwrap();
    until_idle(&upstream, &to).await;
    let error = fetch(&upstream, &to, Version::HTTP_11, "/").await.unwrap_err();
    assert_eq!((error.kind(), seen.counts()), ("upstream-protocol", (1, 2)));
    fetch(&upstream, &to, Version::HTTP_11, "/").await.unwrap();
    assert_eq!(seen.counts(), (2, 3));
}

/// Says GOAWAY with every first response.
async fn h2_once(tls: TlsStream<TcpStream>, seen: Arc<Seen>) {
    let first = Arc::new(Notify::new());
    let answered = first.clone();
    let service = service_fn(move |request| {
        answered.notify_one();
        answer(request, seen.clone())
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = first.notified() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[tokio::test]
async fn goaway_means_a_new_connection() {
    let ca = Ca::new();
    let (to, seen) = listen(ca.acceptor(&["h2"], |_| {}), h2_once).await;
    let upstream = ca.upstream();
    for n in 1..=5 {
        fetch(&upstream, &to, Version::HTTP_2, "/").await.unwrap();
        assert_eq!(seen.counts(), (n, n));
    }
}

#[tokio::test]
async fn upgrades_pass_over_http1() {
    let ca = Ca::new();
    let (to, _) = listen(ca.acceptor(&["h2", "http/1.1"], |_| {}), http1).await;
    let upstream = ca.upstream();
    let mut request = request(Version::HTTP_11, "/", empty());
    *request.method_mut() = Method::GET;
    request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("flip"));
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    let mut response = upstream.exchange(&to, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(&[0x0f]).await.unwrap();
    assert_eq!(io.read_u8().await.unwrap(), 0xf0);
    assert!(!upstream.entry(&to).has_idle());
}

#[tokio::test]
async fn a_failing_request_body_is_not_the_servers_fault() {
    let ca = Ca::new();
    let (to, _) = listen(ca.acceptor(&[], |_| {}), http1).await;
    // A body that fails after a byte.
    let body = http_body_util::Limited::new(full("xy".into(), None), 1).boxed();
    let error = ca.upstream().exchange(&to, request(Version::HTTP_11, "/", body)).await.err().unwrap();
    assert_eq!(error.kind(), "request-body");
    assert!(error.to_string().contains("length limit exceeded"), "{error}");
}

/// An HTTP/2 server that refuses the second request of its life, unprocessed as the protocol has it.
async fn refuses_second(tls: TlsStream<TcpStream>, seen: Arc<Seen>) {
    let mut connection = ::h2::server::handshake(tls).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        if seen.requests.fetch_add(1, SeqCst) == 1 {
            respond.send_reset(::h2::Reason::REFUSED_STREAM);
        } else {
            respond.send_response(Response::new(()), true).unwrap();
        }
    }
}

#[tokio::test]
async fn only_a_request_refused_unprocessed_and_without_a_body_is_sent_again() {
    let ca = Ca::new();
    for (body, sent_again) in [(empty(), true), (full("x".into(), None), false)] {
        let (to, seen) = listen(ca.acceptor(&["h2"], |_| {}), refuses_second).await;
        let upstream = ca.upstream();
        fetch(&upstream, &to, Version::HTTP_2, "/").await.unwrap();
        let second = upstream.exchange(&to, request(Version::HTTP_2, "/", body)).await;
        assert_eq!((second.is_ok(), seen.requests.load(SeqCst)), (sent_again, if sent_again { 3 } else { 2 }));
    }
}

#[tokio::test]
async fn destinations_that_failed_take_no_room() {
    let ca = Ca::new();
    let upstream = ca.upstream();
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().ok();
    let to = Destination { target: Target { host: NAME.parse().unwrap(), port: 443 }, addr };
    assert!(upstream.protocol(&to, true).await.is_err());
    assert!(fetch(&upstream, &to, Version::HTTP_11, "/").await.is_err());
    assert_eq!(upstream.pool.len(), 0);
}
