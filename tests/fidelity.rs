//! What passes through is what was sent: the odd corners of HTTP, with raw octets or hyper on either side.

// A test's failure is a panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/proxy.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use support::{Ca, Client, NAME, Origin, Proxy, Setup, empty, read_head, tls_server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot},
};
use tokio_rustls::server::TlsStream;

const H1: &[&str] = &["http/1.1"];
const H2: &[&str] = &["h2"];

/// Octets of one header section that both sides must carry.
const LARGE: usize = 64 * 1024;

/// An HTTP/1.1 origin that answers every request head with `answer`, and tells what it got.
async fn scripted(ca: &Ca, answer: &'static [u8]) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (saw, heads) = mpsc::unbounded_channel();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let saw = saw.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                saw.send(head).unwrap();
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    (addr, heads)
}

/// hyper as an origin, with room for large header sections.
async fn origin<F>(ca: &Ca, alpn: &[&str], answer: fn(Request<Incoming>) -> F) -> SocketAddr
where
    F: Future<Output = Response<authsome::upstream::Body>> + Send + 'static,
{
    tls_server(ca.acceptor(NAME, alpn), move |stream| async move {
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request).await) });
        let _ = if h2 {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(1 << 20).serve_connection(TokioIo::new(stream), service).await
        } else {
            hyper::server::conn::http1::Builder::new().max_headers(2000).serve_connection(TokioIo::new(stream), service).await
        };
    })
    .await
}

/// The order of fields with one name, and of the names, is the sender's; only what concerns one connection is gone.
#[tokio::test]
async fn names_keep_their_case_and_order() {
    let ca = Ca::new();
    let answer = b"HTTP/1.1 200 Very Fine\r\nServer: x\r\nConnection: keep-alive, X-Hop\r\nSet-Cookie: a=1\r\nX-Hop: gone\r\nSET-cookie: b=2\r\nKeep-Alive: timeout=5\r\nZ-last: 1\r\nA-first: 2\r\nContent-Length: 2\r\nM-end: 3\r\n\r\nok";
    let (addr, mut heads) = scripted(&ca, answer).await;
    let proxy = Proxy::before(addr, &ca).await;
    let host = format!("{NAME}:{}", addr.port());
    let request = format!(
        "POST /a%2Fb?c=d&&e HTTP/1.1\r\nHost: {host}\r\nZ-Last: 1\r\nConnection: keep-alive\r\nAUTHORIZATION: Bearer mine\r\nuser-agent: x\r\nX-Two: b\r\nx-two: a\r\nA-First: 2\r\nContent-Length: 0\r\nM-End: 3\r\n\r\n"
    );
    let answered = proxy.raw(request.as_bytes(), "\r\n\r\nok").await;
    assert_eq!(
        answered,
        "HTTP/1.1 200 Very Fine\r\nServer: x\r\nSet-Cookie: a=1\r\nSET-cookie: b=2\r\nZ-last: 1\r\nA-first: 2\r\nContent-Length: 2\r\nM-end: 3\r\n\r\nok"
    );
    assert_eq!(
        heads.recv().await.unwrap(),
        format!(
            "POST /a%2Fb?c=d&&e HTTP/1.1\r\nHost: {host}\r\nZ-Last: 1\r\nAUTHORIZATION: Bearer {}\r\nuser-agent: x\r\nX-Two: b\r\nx-two: a\r\nA-First: 2\r\nContent-Length: 0\r\nM-End: 3\r\n\r\n",
            support::KEY
        )
    );
}

/// Nor does HTTP/2 change it, where `host` becomes `:authority` (RFC 9113 §8.3.1), whatever the server speaks.
#[tokio::test]
async fn names_keep_their_order_in_http2() {
    const SENT: [(&str, &str); 7] = [
        ("z-last", "1"),
        ("authorization", "Bearer mine"),
        ("user-agent", "x"),
        ("x-two", "b"),
        ("x-two", "a"),
        ("a-first", "2"),
        ("m-end", "3"),
    ];
    let ca = Ca::new();
    for server in [H1, H2] {
        // Tells the names that it got, and answers with fields of which one ends here where it speaks HTTP/1.1.
        let addr = origin(&ca, server, |request| async move {
            let names: Vec<_> = request.headers().iter().map(|(name, _)| name.as_str()).filter(|name| *name != "host").collect();
            let mut response = Response::builder().header("z-last", "1").header("x-names", names.join(" "));
            if request.version() == http::Version::HTTP_11 {
                response = response.header("keep-alive", "timeout=5");
            }
            response.header("b", "2").header("a-first", "3").header("b", "4").header("m-end", "5").body(empty()).unwrap()
        })
        .await;
        let proxy = Proxy::before(addr, &ca).await;
        let request = SENT.iter().fold(Request::get("/").header("host", format!("{NAME}:{}", addr.port())), |request, (name, value)| {
            request.header(*name, *value)
        });
        let response = proxy.client(H2).await.send(addr.port(), request.body(empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["x-names"], "z-last authorization user-agent x-two x-two a-first m-end", "{server:?}");
        let names: Vec<_> = response.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(names[0], "z-last: 1", "{server:?}: {names:?}");
        assert_eq!(names[2..6], ["b: 2", "b: 4", "a-first: 3", "m-end: 5"], "{server:?}: {names:?}");
    }
}

/// Any method may have a body, of unknown length too; and fields of HTTP/1.1 stay as many as they were, cookies included.
#[tokio::test]
async fn a_chunked_body_stays_whatever_the_method() {
    let ca = Ca::new();
    for method in ["GET", "HEAD", "DELETE", "POST"] {
        for body in ["3\r\nask\r\n0\r\n\r\n", "0\r\n\r\n"] {
            let (saw, mut requests) = mpsc::unbounded_channel();
            let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
                let saw = saw.clone();
                async move {
                    let Some(mut request) = read_head(&mut stream).await else { return };
                    while request.to_lowercase().contains("transfer-encoding: chunked") && !request.ends_with("0\r\n\r\n") {
                        request.push(stream.read_u8().await.unwrap().into());
                    }
                    saw.send(request).unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                }
            })
            .await;
            let proxy = Proxy::before(addr, &ca).await;
            let head = format!("{method} / HTTP/1.1\r\nHost: {NAME}:{}\r\nCookie: a=1\r\nCookie: b=2\r\n", addr.port());
            proxy.raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}").as_bytes(), "\r\n\r\n").await;
            let key = format!("authorization: Bearer {}\r\n", support::KEY);
            let seen = requests.recv().await.unwrap().replace(&key, "").replace("transfer-encoding", "Transfer-Encoding");
            assert_eq!(seen, format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}"));
        }
    }
}

/// Declared or not, with or without `TE` (RFC 9110 §10.1.4); but not what frames the message, nor the key.
#[tokio::test]
async fn trailers_come_back_in_http1() {
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\nX-sum: 8\r\nX-Key: ";
    let ca = Ca::new();
    let answer = |declared: &str| format!("HTTP/1.1 200 OK\r\n{declared}{CHUNKED}{}\r\n\r\n", support::KEY).leak().as_bytes();
    for addr in [scripted(&ca, answer("")).await.0, scripted(&ca, answer("Trailer: x-sum\r\n")).await.0] {
        let api_url = format!("https://{NAME}:{}", addr.port());
        let proxy = Proxy::with(addr, &ca, Setup { api_url, scrub: true, ..Setup::default() }).await;
        for te in ["", "TE: trailers\r\n"] {
            let request = |more: &str| format!("GET / HTTP/1.1\r\nHost: {NAME}:{}\r\n{te}{more}\r\n", addr.port());
            let (first, last) = (request(""), request("Connection: close\r\n"));
            let answers = proxy.raw(format!("{first}{first}{last}").as_bytes(), "HTTP/1.0").await;
            let bodies = answers.split("HTTP/1.1 200 OK\r\n").skip(1).map(|answer| answer.split_once("\r\n\r\n").unwrap().1);
            let hidden = "*".repeat(support::KEY.len());
            let body = format!("2\r\nok\r\n0\r\nx-sum: 7\r\nx-sum: 8\r\nx-key: {hidden}\r\n\r\n");
            assert_eq!(bodies.collect::<Vec<_>>(), [&body; 3], "{te}{answers}");
        }
        // HTTP/1.0 has no chunks to put them in.
        let request = format!("GET / HTTP/1.0\r\nHost: {NAME}:{}\r\n\r\n", addr.port());
        let answer = proxy.raw(request.as_bytes(), "HTTP/1.1").await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    }
}

/// Also where the server is asked again on the same connection.
#[tokio::test]
async fn trailers_go_up_in_http1() {
    let ca = Ca::new();
    let (saw, mut bodies) = mpsc::unbounded_channel();
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let saw = saw.clone();
        CONNECTIONS.fetch_add(1, SeqCst);
        async move {
            while read_head(&mut stream).await.is_some() {
                saw.send(read_head(&mut stream).await.unwrap()).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    for (declared, end) in [("", "X-Sum: 7\r\nHost: evil.test\r\n"), ("Trailer: x-sum\r\n", "x-sum: 7\r\n"), ("", "")] {
        let head = format!("POST / HTTP/1.1\r\nHost: {NAME}:{}\r\n{declared}Transfer-Encoding: chunked\r\n\r\n", addr.port());
        stream.write_all(format!("{head}3\r\nask\r\n0\r\n{end}\r\n").as_bytes()).await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.read_exact(&mut [0; 2]).await.unwrap();
        let trailers = if end.is_empty() { "" } else { "x-sum: 7\r\n" };
        assert_eq!(bodies.recv().await.unwrap(), format!("3\r\nask\r\n0\r\n{trailers}\r\n"));
    }
    assert_eq!(CONNECTIONS.load(SeqCst), 1);
    let (frames, body) = support::channel();
    frames.send(Frame::data(Bytes::from_static(b"ask"))).unwrap();
    frames.send(Frame::trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]))).unwrap();
    proxy.client(H2).await.send(addr.port(), Request::post("/").body(body).unwrap()).await.unwrap();
    assert_eq!(bodies.recv().await.unwrap(), "3\r\nask\r\n0\r\nx-sum: 7\r\n\r\n");
}

/// Fields that make up a header section of [`LARGE`] octets, half of it in one field.
fn large_fields() -> Vec<(String, String)> {
    let mut fields = vec![("x-long".to_owned(), "l".repeat(LARGE / 2))];
    fields.extend((0..200).map(|n| (format!("x-{n}"), "s".repeat(LARGE / 2 / 200))));
    fields
}

#[tokio::test]
async fn large_header_sections_pass_both_ways() {
    let ca = Ca::new();
    for (child, server) in [(H1, H1), (H2, H1), (H2, H2)] {
        let addr = origin(&ca, server, |request| async move {
            let mut response = Response::new(empty());
            let names = request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-"));
            names.for_each(|(name, value)| {
                response.headers_mut().append(name, value.clone());
            });
            response
        })
        .await;
        let proxy = Proxy::before(addr, &ca).await;
        let mut request = Request::get("/");
        for (name, value) in large_fields() {
            request = request.header(name, value);
        }
        let response = proxy.client(child).await.send(addr.port(), request.body(empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200, "{child:?} {server:?}: {:?}", response.headers().get("x-authsome-error"));
        for (name, value) in large_fields() {
            assert_eq!(response.headers()[&name], value, "{child:?} {server:?}");
        }
    }
}

/// A connection that fails before the answer fails at the child as well, instead of turning into an answer that no server gave.
#[tokio::test]
async fn an_origin_that_hangs_up_is_felt_as_that() {
    let ca = Ca::new();
    for reset in [false, true] {
        let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| async move {
            read_head(&mut stream).await;
            if reset {
                stream.get_ref().0.set_zero_linger().unwrap();
            }
        })
        .await;
        let proxy = Proxy::before(addr, &ca).await;
        let mut stream = proxy.tls(NAME, H1).await.unwrap();
        stream.write_all(format!("POST / HTTP/1.1\r\nHost: {NAME}:{}\r\nContent-Length: 0\r\n\r\n", addr.port()).as_bytes()).await.unwrap();
        let error = stream.read(&mut [0; 64]).await.unwrap_err();
        let kind = if reset { io::ErrorKind::ConnectionReset } else { io::ErrorKind::UnexpectedEof };
        assert_eq!(error.kind(), kind, "{reset}");
        let record = &proxy.records(1).await[0];
        assert_eq!((&record["blame"], &record["reason"]), (&"upstream".into(), &"upstream-protocol".into()), "{record}");

        // In HTTP/2 that is a reset of the stream, and the connection lives on.
        let mut client = proxy.client(H2).await;
        for _ in 0..2 {
            let request = Request::post("/").body(empty()).unwrap();
            let error = client.send(addr.port(), request).await.unwrap_err();
            assert_eq!(reason(&error), Some(h2::Reason::INTERNAL_ERROR), "{error:?}");
        }
    }
}

fn reason(error: &hyper::Error) -> Option<h2::Reason> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>()).and_then(h2::Error::reason)
}

/// Body cut off by a reset: the child's connection is reset too (HTTP/1.1), or its stream with the server's own code (HTTP/2).
#[tokio::test]
async fn a_reset_within_the_answer_is_passed_on() {
    let ca = Ca::new();
    let addr = tls_server(ca.acceptor(NAME, H1), |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        stream.read_u8().await.unwrap();
        stream.get_ref().0.set_zero_linger().unwrap();
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: {NAME}:{}\r\nContent-Length: 1\r\n\r\n", addr.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"half") {
        answer.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    let addr = raw_h2(&ca, |mut connection| async move {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        let (_, mut second) = connection.accept().await.unwrap().unwrap();
        body.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
        second.send_reset(h2::Reason::HTTP_1_1_REQUIRED);
        let _ = connection.accept().await;
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut client = proxy.client(H2).await;
    let mut body = client.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    let refused = client.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap_err();
    assert_eq!(reason(&refused), Some(h2::Reason::HTTP_1_1_REQUIRED));
    assert_eq!(reason(&body.frame().await.unwrap().unwrap_err()), Some(h2::Reason::ENHANCE_YOUR_CALM));
}

/// A reset says that a message is not whole whatever its code, and a client that cancels may well say NO_ERROR (RFC 9113 §7).
#[tokio::test]
async fn a_reset_without_an_error_ends_no_message() {
    let ca = Ca::new();
    static UPLOAD: std::sync::Mutex<Option<oneshot::Sender<Option<h2::Reason>>>> = std::sync::Mutex::new(None);
    let (ended, upload) = oneshot::channel();
    *UPLOAD.lock().unwrap() = Some(ended);
    let addr = raw_h2(&ca, |mut connection| async move {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        let (request, _respond) = connection.accept().await.unwrap().unwrap();
        body.send_reset(h2::Reason::NO_ERROR);
        tokio::spawn(async move {
            let mut upload = request.into_body();
            let end = loop {
                match upload.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error.reason(),
                    None => break None,
                }
            };
            UPLOAD.lock().unwrap().take().unwrap().send(end).unwrap();
        });
        let _ = connection.accept().await;
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let stream = proxy.tls(NAME, H2).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("https://{NAME}:{}/", addr.port());
    let (download, _) = client.send_request(Request::get(&uri).body(()).unwrap(), true).unwrap();
    let mut download = download.await.unwrap().into_body();
    assert_eq!(download.data().await.unwrap().unwrap(), "half");
    let mut client = client.ready().await.unwrap();
    let (_response, mut sending) = client.send_request(Request::post(&uri).body(()).unwrap(), false).unwrap();
    sending.send_data(Bytes::from_static(b"half"), false).unwrap();
    let cut = download.data().await.expect("not the end of the body").unwrap_err();
    assert_eq!(cut.reason(), Some(h2::Reason::NO_ERROR));
    sending.send_reset(h2::Reason::NO_ERROR);
    assert_eq!(upload.await.unwrap(), Some(h2::Reason::NO_ERROR));
}

async fn raw_h2<F>(ca: &Ca, serve: fn(h2::server::Connection<TlsStream<TcpStream>, Bytes>) -> F) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    tls_server(ca.acceptor(NAME, H2), move |stream| async move { serve(h2::server::handshake(stream).await.unwrap()).await }).await
}

/// A child that has said all says so to the server, which may still answer; most give up the request, and that is neither a fault of theirs nor a
/// reason to ask again. The connection, over which nothing more can be said, serves no other child.
#[tokio::test]
async fn a_child_that_has_said_all_is_heard_by_the_server() {
    const BODY: usize = 1024 * 1024;
    let ca = Ca::new();
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = connections.clone();
    // Answers `/wait` only to a child that has said all, hangs up on it for `/leave`.
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        seen.fetch_add(1, SeqCst);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let mut octets = 0;
                if head.starts_with("PUT") {
                    octets = stream.read_exact(&mut vec![0; BODY]).await.unwrap();
                }
                if !head.contains(" / ") {
                    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "more than was sent");
                }
                if head.contains(" /leave ") {
                    return;
                }
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{octets:07}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    for (request, answer, connected) in [
        ("GET /", "0000000", 1),
        ("GET /", "0000000", 1),
        ("GET /wait", "0000000", 1),
        ("PUT /wait", "1048576", 2),
        ("GET /", "0000000", 3),
        ("GET /leave", "", 3),
        ("GET /", "0000000", 4),
    ] {
        let mut stream = proxy.tls(NAME, H1).await.unwrap();
        let length = if request.starts_with("PUT") { BODY } else { 0 };
        let head = format!("{request} HTTP/1.1\r\nHost: {NAME}:{}\r\nContent-Length: {length}\r\n\r\n", addr.port());
        stream.write_all(&[head.as_bytes(), &vec![0; length]].concat()).await.unwrap();
        let mut answered = String::new();
        if request.ends_with(" /") {
            answered = read_head(&mut stream).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_string(&mut answered).await;
        assert!(answered.ends_with(answer) && answered.is_empty() == answer.is_empty(), "{request}: {answered:?}");
        assert_eq!(connections.load(SeqCst), connected, "{request}");
    }
    assert!(!proxy.said().iter().any(|line| line.contains(NAME) && line.contains("closed")), "{:?}", proxy.said());
    let left: Vec<_> = proxy.records(7).await.into_iter().filter(|record| record["path"] == "/leave").collect();
    assert_eq!(left.len(), 1);
    assert!(left[0].to_string().contains("the client left before the response"), "{left:?}");
}

/// HTTP/1.0 on either side: the end of the connection is the end of the body, and is kept apart from a broken one.
#[tokio::test]
async fn an_origin_of_http10_is_understood() {
    let ca = Ca::new();
    let addr = tls_server(ca.acceptor(NAME, H1), |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nto the end").await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let host = format!("Host: {NAME}:{}\r\n", addr.port());
    let old = proxy.raw(format!("GET / HTTP/1.0\r\n{host}\r\n").as_bytes(), "never").await;
    assert_eq!(old, "HTTP/1.0 200 OK\r\nServer: old\r\n\r\nto the end");
    let new = proxy.raw(format!("GET / HTTP/1.1\r\n{host}\r\n").as_bytes(), "0\r\n\r\n").await;
    assert_eq!(new, "HTTP/1.1 200 OK\r\nServer: old\r\ntransfer-encoding: chunked\r\n\r\nA\r\nto the end\r\n0\r\n\r\n");
    let response = proxy.client(H2).await.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "to the end");
}

/// The stream under way is finished, the next request goes elsewhere.
#[tokio::test]
async fn a_goaway_ends_no_stream() {
    let ca = Ca::new();
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let addr = raw_h2(&ca, |mut connection| async move {
        let number = CONNECTIONS.fetch_add(1, SeqCst);
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"first"), false).unwrap();
        connection.graceful_shutdown();
        if number == 0 {
            // The rest comes only when the request after has been answered on another connection.
            tokio::spawn(async move {
                while CONNECTIONS.load(SeqCst) < 2 {
                    tokio::task::yield_now().await;
                }
                body.send_data(Bytes::from_static(b"last"), true).unwrap();
            });
        } else {
            body.send_data(Bytes::new(), true).unwrap();
        }
        while connection.accept().await.is_some() {}
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut client = proxy.client(H2).await;
    let get = || Request::get("/").body(empty()).unwrap();
    let mut slow = client.send(addr.port(), get()).await.unwrap().into_body();
    assert_eq!(slow.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    let next = client.send(addr.port(), get()).await.unwrap();
    assert_eq!(next.into_body().collect().await.unwrap().to_bytes(), "first");
    assert_eq!(slow.collect().await.unwrap().to_bytes(), "last");
}

/// What an orderly GOAWAY leaves out was not processed (RFC 9113 §6.8), and goes to the next connection; or else the child is told that it may send it
/// again (RFC 9113 §8.7).
#[tokio::test]
async fn what_a_goaway_leaves_out_is_sent_again() {
    const HEADERS: u8 = 1;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// `:status: 200` on stream 1. Its body never ends, so that the connection outlives its GOAWAY and does not show by its end that it is of no more use.
    const ANSWER: [u8; 10] = [0, 0, 1, HEADERS, 4, 0, 0, 0, 1, 0x88];
    const GOAWAY_AFTER_THE_FIRST: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let ca = Ca::new();
    for body in ["", "cannot be had twice"] {
        let connections = Arc::new(AtomicUsize::new(0));
        let opened = connections.clone();
        let addr = tls_server(ca.acceptor(NAME, H2), move |mut stream| {
            let first = opened.fetch_add(1, SeqCst) == 0;
            async move {
                if first {
                    stream.write_all(&SETTINGS).await.unwrap();
                    stream.read_exact(&mut [0; b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()]).await.unwrap();
                    let mut requests = 0;
                    while requests < 2 {
                        let mut head = [0; 9];
                        stream.read_exact(&mut head).await.unwrap();
                        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                        stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
                        if head[3] == HEADERS {
                            requests += 1;
                            stream.write_all(if requests == 1 { &ANSWER[..] } else { &GOAWAY_AFTER_THE_FIRST }).await.unwrap();
                        }
                    }
                    while stream.read_u8().await.is_ok() {}
                    return;
                }
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_response(Response::new(()), true).unwrap();
                }
            }
        })
        .await;
        let proxy = Proxy::before(addr, &ca).await;
        let mut client = proxy.client(H2).await;
        let first = client.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap();
        assert_eq!((first.status().as_u16(), connections.load(SeqCst)), (200, 1));
        let second = client.send(addr.port(), Request::put("/").body(support::text(body)).unwrap()).await;
        match second {
            Ok(response) => assert_eq!((response.status().as_u16(), connections.load(SeqCst), body), (200, 2, "")),
            Err(error) => assert_eq!((reason(&error), body), (Some(h2::Reason::REFUSED_STREAM), "cannot be had twice"), "{error:?}"),
        }
    }
}

/// What a server refuses because of its limit can often not be sent again: a further connection starts with the limit of the one that there is, not
/// with what clients take for granted until they are told (RFC 9113 §6.5.2).
#[tokio::test]
async fn a_servers_limit_is_known_to_its_next_connection() {
    const REQUESTS: usize = 5;
    static WAITING: std::sync::Mutex<Vec<h2::server::SendResponse<Bytes>>> = std::sync::Mutex::new(Vec::new());
    let ca = Ca::new();
    let answer = |respond: &mut h2::server::SendResponse<Bytes>| drop(respond.send_response(Response::new(()), true).unwrap());
    let addr = tls_server(ca.acceptor(NAME, H2), move |stream| async move {
        let mut connection = h2::server::Builder::new().max_concurrent_streams(1).handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            if request.method() == "GET" {
                answer(&mut respond);
                continue;
            }
            // Nothing is answered before all have come.
            let mut waiting = WAITING.lock().unwrap();
            waiting.push(respond);
            if waiting.len() == REQUESTS {
                waiting.drain(..).for_each(|mut respond| answer(&mut respond));
            }
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut client = proxy.client(H2).await;
    client.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap();
    let Client::H2(sender) = client else { panic!("HTTP/2 was offered") };
    let mut sent = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS {
        let mut client = Client::H2(sender.clone());
        sent.spawn(async move { client.send(addr.port(), Request::post("/").body(support::text("once")).unwrap()).await });
    }
    while let Some(answer) = sent.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
}

/// One that serves so many connections at a time lets others wait without a handshake. Clients that close theirs all get their turn, and so they do
/// where the proxy keeps its own: who waits for a new one takes what others give back, be it a connection or a stream's place.
#[tokio::test]
async fn a_server_of_few_connections_serves_all() {
    const ANY: &[&str] = &["h2", "http/1.1"];
    let ca = Ca::new();
    for (child, server, connections) in [(H1, H1, 3), (ANY, H1, 3), (H2, H1, 3), (H2, H2, 1)] {
        let (acceptor, turns) = (ca.acceptor(NAME, server), Arc::new(Semaphore::new(connections)));
        let addr = support::tcp_server(move |tcp| {
            let (acceptor, turns) = (acceptor.clone(), turns.clone());
            async move {
                let _turn = turns.acquire_owned().await.unwrap();
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                // Not done before others have asked.
                let service = service_fn(|_| async {
                    tokio::task::yield_now().await;
                    Ok::<_, Infallible>(Response::new(support::text("served")))
                });
                let _ = if h2 {
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.max_concurrent_streams(1).serve_connection(TokioIo::new(stream), service).await
                } else {
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                };
            }
        })
        .await;
        let proxy = Arc::new(Proxy::before(addr, &ca).await);
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let proxy = proxy.clone();
            clients.spawn(async move {
                for _ in 0..5 {
                    let response = proxy.client(child).await.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap();
                    assert_eq!(response.status(), 200, "{child:?} {server:?}: {:?}", response.headers().get("x-authsome-error"));
                    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "served");
                }
            });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    }
}

/// A connection that had no request before was no idle one: what fails on it fails as it would without us.
#[tokio::test]
async fn nothing_is_sent_twice_to_a_server_that_hangs_up() {
    let ca = Ca::new();
    let (saw, mut heads) = mpsc::unbounded_channel();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let saw = saw.clone();
        async move { saw.send(read_head(&mut stream).await).unwrap() }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let request = Request::get("/").body(empty()).unwrap();
    proxy.client(H1).await.send(addr.port(), request).await.unwrap_err();
    assert!(heads.recv().await.unwrap().is_some());
    assert_eq!(heads.try_recv(), Err(mpsc::error::TryRecvError::Empty));
}

/// A 304 tells the length of what it stands for (RFC 9110 §8.6), and a 426 what to upgrade to (§15.5.22); the connection goes on.
#[tokio::test]
async fn answers_without_a_body_keep_their_fields() {
    let ca = Ca::new();
    let not_modified = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n";
    let required = b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n";
    for (method, answer) in [("GET", not_modified.as_slice()), ("HEAD", not_modified), ("GET", required)] {
        let (addr, _heads) = scripted(&ca, answer).await;
        let proxy = Proxy::before(addr, &ca).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: {NAME}:{}\r\n\r\n", addr.port());
        let last = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let answered = proxy.raw(format!("{request}{last}").as_bytes(), "never").await;
        assert!(answered.as_bytes().starts_with(answer) && answered.matches("HTTP/1.1").count() == 2, "{answered}");
    }
}

/// Of two lengths chunked is the right one, and the other goes no further (RFC 9112 §6.3): the child would cut the body there, or take its rest for the
/// next message. So in requests.
#[tokio::test]
async fn a_length_that_does_not_count_goes_no_further() {
    let ca = Ca::new();
    let twofold = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\n{twofold}").leak();
    let (addr, mut heads) = scripted(&ca, answer.as_bytes()).await;
    let proxy = Proxy::before(addr, &ca).await;
    let host = format!("{NAME}:{}", addr.port());
    let answered = proxy.raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(), "never").await;
    assert_eq!(answered, "HTTP/1.1 200 OK\r\nconnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n");
    let response = proxy.client(H2).await.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap();
    assert!(!response.headers().contains_key("content-length"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "whole");

    while heads.try_recv().is_ok() {}
    proxy.raw(format!("POST / HTTP/1.1\r\nHost: {host}\r\n{twofold}").as_bytes(), "0\r\n\r\n").await;
    let head = heads.recv().await.unwrap();
    assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
}

/// hyper takes off chunks alone, and the name of another coding ends with the connection (RFC 9112 §6.1): nobody could read what came through. Where
/// there is no body it is no harm.
#[tokio::test]
async fn a_transfer_coding_that_would_be_lost_is_refused() {
    let ca = Ca::new();
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\ncoded\r\n0\r\n\r\n";
    for (child, refused) in [(H1, answer.as_slice()), (H2, answer), (H1, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\ncoded")] {
        let (addr, _heads) = scripted(&ca, refused).await;
        let proxy = Proxy::before(addr, &ca).await;
        let response = proxy.client(child).await.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["x-authsome-error"]), (502, &"upstream-protocol".parse().unwrap()));
        let record = &proxy.records(1).await[0];
        assert_eq!((&record["blame"], &record["reason"]), (&"upstream".into(), &"upstream-protocol".into()), "{record}");
    }
    // Such a connection is not used again.
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| async move {
        CONNECTIONS.fetch_add(1, SeqCst);
        while read_head(&mut stream).await.is_some() {
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut client = proxy.client(H1).await;
    for connections in 1..=2 {
        let response = client.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 502);
        response.into_body().collect().await.unwrap();
        assert_eq!(CONNECTIONS.load(SeqCst), connections);
    }
    let (addr, mut heads) = scripted(&ca, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n").await;
    let proxy = Proxy::before(addr, &ca).await;
    let post =
        format!("POST / HTTP/1.1\r\nHost: {NAME}:{}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\ncoded\r\n0\r\n\r\n", addr.port());
    let answered = proxy.raw(post.as_bytes(), "}\n").await;
    assert!(answered.starts_with("HTTP/1.1 501 ") && answered.contains("x-authsome-error: transfer-coding\r\n"), "{answered}");
    assert!(heads.try_recv().is_err());
    let response = proxy.client(H1).await.send(addr.port(), Request::head("/").body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
}

/// Old servers fold long fields, and put a space before the colon. Both are mended in responses (RFC 9112 §5.1, §5.2).
#[tokio::test]
async fn old_forms_of_fields_are_mended() {
    let ca = Ca::new();
    let (addr, _heads) = scripted(&ca, b"HTTP/1.1 200 OK\r\nX-Long: one,\r\n\ttwo\r\nX-Wide : three\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = Proxy::before(addr, &ca).await;
    let response = proxy.client(H1).await.send(addr.port(), Request::get("/").body(empty()).unwrap()).await.unwrap();
    let fields = ["x-long", "x-wide"].map(|name| response.headers()[name].to_str().unwrap().split_whitespace().collect::<Vec<_>>());
    assert_eq!(fields, [vec!["one,", "two"], vec!["three"]]);
}

/// What has no body in HTTP/2 says nothing of its length, unless the child did.
#[tokio::test]
async fn no_length_is_made_up() {
    let ca = Ca::new();
    let addr = origin(&ca, H2, |request| async move {
        let lengths: Vec<_> = request.headers().get_all("content-length").iter().map(|length| length.to_str().unwrap()).collect();
        Response::builder().header("x-lengths", lengths.join(" ")).body(empty()).unwrap()
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let (mut client, connection) = h2::client::handshake(proxy.tls(NAME, H2).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    for method in ["GET", "OPTIONS", "POST"] {
        for length in [None, Some("0")] {
            let request = Request::builder().method(method).uri(format!("https://{NAME}:{}/", addr.port()));
            let request = length.into_iter().fold(request, |request, length| request.header("content-length", length));
            let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            assert_eq!(response.await.unwrap().headers()["x-lengths"], length.unwrap_or_default(), "{method}");
            client = client.ready().await.unwrap();
        }
    }
}

/// The server closes each connection after its answer without a word, as servers do with idle ones. What comes at that moment is sent once.
#[tokio::test]
async fn nothing_is_sent_twice_to_a_server_that_closes_idle_connections() {
    let ca = Ca::new();
    let (saw, mut bodies) = mpsc::unbounded_channel();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let saw = saw.clone();
        async move {
            let Some(_) = read_head(&mut stream).await else { return };
            saw.send(stream.read_u8().await.unwrap()).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            // What is sent from now on is lost.
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut answered = 0;
    for n in 0..50u8 {
        let request = Request::post("/").body(support::octets(vec![n])).unwrap();
        let response = proxy.client(H1).await.send(addr.port(), request).await;
        answered += usize::from(response.is_ok_and(|response| response.status() == 200));
    }
    bodies.close();
    let mut seen = Vec::new();
    while let Some(body) = bodies.recv().await {
        seen.push(body);
    }
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(seen, once, "a request was sent twice");
    assert!(answered >= seen.len(), "{answered} of {}", seen.len());
}

/// A body of 64 MiB, more than all buffers on the way.
fn large_body() -> authsome::upstream::Body {
    support::octets(vec![0; 64 * 1024 * 1024])
}

/// Refused in the middle of an upload by a server that then closes, at once or after it has read on for a while (RFC 9112 §9.6): the child gets
/// the refusal, and no error in its place.
#[tokio::test]
async fn a_refusal_within_an_upload_arrives() {
    let ca = Ca::new();
    for (linger, child) in [(true, H1), (true, H2), (false, H1), (false, H2)] {
        let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| async move {
            read_head(&mut stream).await;
            stream.read_exact(&mut [0; 100_000]).await.unwrap();
            stream.write_all(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 5\r\n\r\nlarge").await.unwrap();
            stream.shutdown().await.unwrap();
            while linger && stream.read(&mut [0; 65536]).await.is_ok_and(|n| n > 0) {}
        })
        .await;
        let proxy = Proxy::before(addr, &ca).await;
        for _ in 0..20 {
            let request = Request::put("/").body(large_body()).unwrap();
            let response = proxy.client(child).await.send(addr.port(), request).await;
            let response = response.unwrap_or_else(|error| panic!("{linger} {child:?}: {error:?}"));
            assert_eq!(response.status(), 413, "{linger} {child:?} {:?}", response.headers());
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "large", "{linger} {child:?}");
        }
    }
    // The same in HTTP/2, where the server resets the stream once it has answered (RFC 9113 §8.1).
    let addr = raw_h2(&ca, |mut connection| async move {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut upload = request.into_body();
                upload.data().await.unwrap().unwrap();
                let mut body = respond.send_response(Response::builder().status(413).body(()).unwrap(), false).unwrap();
                // h2 sends the reset after that, once nobody reads the request.
                body.send_data(Bytes::from_static(b"large"), true).unwrap();
            });
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    for _ in 0..20 {
        let response = proxy.client(H2).await.send(addr.port(), Request::put("/").body(large_body()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "large");
    }
}

/// Where nobody reads the rest of a request, whether the server refused it or we did, no other can follow it on its connection, and the child is told
/// so (RFC 9112 §9.6). It would send one there, which may be one that cannot be sent again.
#[tokio::test]
async fn a_connection_whose_upload_was_left_says_that_it_ends() {
    let ca = Ca::new();
    let (addr, _heads) = scripted(&ca, b"HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = Proxy::before(addr, &ca).await;
    let host = format!("{NAME}:{}", addr.port());
    for (host, status, length, ends) in [(&*host, 403, 10, true), (&host, 403, 0, false), (NAME, 421, 10, true), (NAME, 421, 0, false)] {
        let mut stream = proxy.tls(NAME, H1).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(head.to_ascii_lowercase().contains("connection: close\r\n"), ends, "{host} {length}: {head}");
    }
}

/// In HTTP/2 the rest of a refused upload is read on for a moment: the reset that says that nobody wants it makes some clients forget the answer.
#[tokio::test]
async fn an_answer_is_not_overtaken_by_a_reset() {
    let ca = Ca::new();
    let addr = raw_h2(&ca, |mut connection| async move {
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(Response::builder().status(413).body(()).unwrap(), true).unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    for (port, status) in [(addr.port(), 413), (1, 421)] {
        let (mut client, connection) = h2::client::handshake(proxy.tls(NAME, H2).await.unwrap()).await.unwrap();
        tokio::spawn(connection);
        let (answer, mut upload) = client.send_request(Request::post(format!("https://{NAME}:{port}/")).body(()).unwrap(), false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), status);
        let mut body = answer.into_body();
        while let Some(data) = body.data().await {
            data.unwrap();
        }
        // Twice what the proxy lets a client send that it does not read.
        let mut rest = Bytes::from(vec![0; 2 * 1024 * 1024]);
        while !rest.is_empty() {
            upload.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| upload.poll_capacity(cx)).await.unwrap().unwrap();
            upload.send_data(rest.split_to(room), false).unwrap();
        }
        upload.send_data(Bytes::new(), true).unwrap();
    }
}

/// A child that sends all it has before it reads, as simple clients do, still finds the refusal.
#[tokio::test]
async fn a_refusal_waits_for_a_child_that_reads_last() {
    let ca = Ca::new();
    let addr = tls_server(ca.acceptor(NAME, H1), |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 401 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: {NAME}:{}\r\nContent-Length: 16777216\r\n\r\n", addr.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..256 {
        stream.write_all(&[0; 65536]).await.unwrap();
    }
    assert!(read_head(&mut stream).await.unwrap().starts_with("HTTP/1.1 401 No\r\n"));
}

/// The server closes a connection in the very moment that a second request is on its way. One that changes nothing is sent again, on another
/// connection (RFC 9110 §9.2.2); any other fails as it would without us.
#[tokio::test]
async fn only_what_is_idempotent_is_sent_again() {
    let ca = Ca::new();
    for reset in [false, true] {
        let (saw, mut heads) = mpsc::unbounded_channel();
        let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
            let saw = saw.clone();
            async move {
                for turn in 0..2 {
                    let Some(head) = read_head(&mut stream).await else { return };
                    saw.send(head.split(' ').next().unwrap().to_owned()).unwrap();
                    if turn == 0 {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    } else if reset {
                        stream.get_ref().0.set_zero_linger().unwrap();
                    }
                }
            }
        })
        .await;
        let proxy = Proxy::before(addr, &ca).await;
        for (method, answered) in [("GET", true), ("HEAD", true), ("DELETE", true), ("POST", false), ("PATCH", false)] {
            let request = |method: &str| Request::builder().method(method).uri("/").body(empty()).unwrap();
            let mut client = proxy.client(H1).await;
            client.send(addr.port(), request("OPTIONS")).await.unwrap().into_body().collect().await.unwrap();
            let second = client.send(addr.port(), request(method)).await;
            assert_eq!(second.is_ok_and(|response| response.status() == 200), answered, "{method} {reset}");
            let mut seen = Vec::new();
            while let Ok(head) = heads.try_recv() {
                seen.push(head);
            }
            let times = seen.iter().filter(|seen| *seen == method).count();
            assert_eq!(times, 1 + usize::from(answered), "{reset}: {seen:?}");
        }
    }
}

/// The child is asked for its body when the server asks, and never where the server answers without.
#[tokio::test]
async fn an_expectation_is_the_servers_to_meet() {
    let ca = Ca::new();
    let refusal = b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno";
    let (saw, mut after) = mpsc::unbounded_channel();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let saw = saw.clone();
        async move {
            let head = read_head(&mut stream).await.unwrap();
            let mut body = [0; 4];
            if head.starts_with("POST /refused") {
                stream.write_all(refusal).await.unwrap();
                saw.send(stream.read(&mut body).await.unwrap_or(0)).unwrap();
                return;
            }
            if head.starts_with("POST /asked") {
                stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            }
            stream.read_exact(&mut body).await.unwrap();
            saw.send(body.len()).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let asked = "HTTP/1.1 100 Continue\r\n\r\n";
    let hinted = ["HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", asked];
    // A server that knows no expectations says nothing and waits.
    for (path, interim, answer, octets) in
        [("/asked", &hinted[..], "HTTP/1.1 200", 4), ("/refused", &[], "HTTP/1.1 417", 0), ("/silent", &[asked], "HTTP/1.1 200", 4)]
    {
        let mut stream = proxy.tls(NAME, H1).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {NAME}:{}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", addr.port());
        stream.write_all(head.as_bytes()).await.unwrap();
        for head in interim {
            assert_eq!(read_head(&mut stream).await.unwrap(), *head, "{path}");
        }
        if !interim.is_empty() {
            stream.write_all(b"body").await.unwrap();
        }
        assert!(read_head(&mut stream).await.unwrap().starts_with(answer), "{path}");
        stream.read_exact(&mut [0; 2]).await.unwrap();
        drop(stream);
        assert_eq!(after.recv().await.unwrap(), octets, "{path}");
    }
}

/// A server of HTTP/2 alone takes WebSockets as RFC 8441 says, whether or not that was known when the first was asked for.
#[tokio::test]
async fn a_websocket_reaches_a_server_of_http2_alone() {
    let ca = Ca::new();
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let late = tls_server(ca.acceptor(NAME, H2), |stream| async move {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        if CONNECTIONS.fetch_add(1, SeqCst) > 0 {
            builder.enable_connect_protocol();
        }
        let _ = builder.serve_connection(TokioIo::new(stream), service_fn(shout)).await;
    })
    .await;
    for addr in [Origin::start(&ca, NAME, H2).await.addr, late] {
        let proxy = Proxy::before(addr, &ca).await;
        let mut client = proxy.client(H2).await;
        for _ in 0..2 {
            let mut request = Request::connect("/upgrade").body(empty()).unwrap();
            request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
            let response = client.send(addr.port(), request).await.unwrap();
            assert_eq!(response.status(), 200, "{:?}", response.headers());
            let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
            io.write_all(b"hello").await.unwrap();
            let mut echo = [0; 5];
            io.read_exact(&mut echo).await.unwrap();
            assert_eq!(&echo, b"HELLO");
        }
    }
    assert_eq!(CONNECTIONS.load(SeqCst), 2);
}

async fn shout(mut request: Request<Incoming>) -> Result<Response<authsome::upstream::Body>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut word = [0; 5];
        while io.read_exact(&mut word).await.is_ok() {
            io.write_all(&word.to_ascii_uppercase()).await.unwrap();
        }
    });
    Ok(Response::new(empty()))
}

/// In an opened connection that has become something else, each side may end while the other goes on.
#[tokio::test]
async fn an_upgraded_connection_ends_one_way_at_a_time() {
    const LENGTH: usize = 1 << 20;
    let ca = Ca::new();
    let (saw, mut heard) = mpsc::unbounded_channel();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let saw = saw.clone();
        async move {
            let first = read_head(&mut stream).await.unwrap().starts_with("GET /first");
            stream.write_all(b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: talk\r\n\r\n").await.unwrap();
            let mut all = Vec::new();
            if !first {
                stream.read_to_end(&mut all).await.unwrap();
            }
            stream.write_all(&[b's'; LENGTH]).await.unwrap();
            stream.shutdown().await.unwrap();
            if first {
                stream.read_to_end(&mut all).await.unwrap();
            }
            saw.send(all).unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    for path in ["/first", "/last"] {
        let mut stream = proxy.tls(NAME, H1).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {NAME}:{}\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n", addr.port());
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(read_head(&mut stream).await.unwrap().starts_with("HTTP/1.1 101 "));
        let mut all = Vec::new();
        if path == "/first" {
            stream.read_to_end(&mut all).await.unwrap();
        }
        stream.write_all(&[b'c'; LENGTH]).await.unwrap();
        stream.shutdown().await.unwrap();
        if path == "/last" {
            stream.read_to_end(&mut all).await.unwrap();
        }
        assert!(all == [b's'; LENGTH], "{path}: {}", all.len());
        assert!(heard.recv().await.unwrap() == [b'c'; LENGTH], "{path}");
    }
}
