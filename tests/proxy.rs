//! The data plane in process: real TLS on both sides, real HTTP, raw bytes.

// A test's failure is a panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/proxy.rs"]
mod support;

use authsome::upstream::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use support::{Ca, KEY, NAME, OTHER_PLACEHOLDER, Origin, Proxy, Setup, channel, empty, octets, read_head, tcp_server, text, tls_server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const H1: &[&str] = &["http/1.1"];
const H2: &[&str] = &["h2"];
const BOTH: &[&str] = &["h2", "http/1.1"];
const NONE: &[&str] = &[];

fn get(path: &str) -> Request<Body> {
    Request::get(path).header("authorization", "Bearer authsome-proxy-managed").body(empty()).unwrap()
}

#[tokio::test]
async fn the_key_is_injected_whatever_each_side_speaks() {
    let ca = Ca::new();
    for (child, server, sees) in [
        (NONE, BOTH, Version::HTTP_11),
        (H1, BOTH, Version::HTTP_11),
        (&["http/1.0"], BOTH, Version::HTTP_11),
        (H2, BOTH, Version::HTTP_2),
        (BOTH, BOTH, Version::HTTP_2),
        (BOTH, H1, Version::HTTP_11),
        (H2, H1, Version::HTTP_11),
        (BOTH, NONE, Version::HTTP_11),
    ] {
        let origin = Origin::start(&ca, NAME, server).await;
        let proxy = Proxy::before(origin.addr, &ca).await;
        let mut client = proxy.client(child).await;
        for _ in 0..2 {
            let response = client.send(origin.addr.port(), get("/v1/models?a=b")).await.unwrap();
            assert_eq!((response.status(), &response.headers()["x-origin"]), (StatusCode::OK, &"yes".parse().unwrap()));
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
        }
        for seen in origin.seen() {
            assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"), "{child:?} {server:?}");
            assert_eq!(seen.version, sees, "{child:?} {server:?}");
            assert!(seen.uri.ends_with("/v1/models?a=b"));
        }
        let records = proxy.records(2).await;
        assert_eq!(records.len(), 2);
        for record in records {
            assert_eq!((&record["decision"], &record["status"], &record["provider"]), (&"injected".into(), &200.into(), &"acme".into()));
        }
    }
}

#[tokio::test]
async fn a_path_no_provider_claims_goes_on_unchanged_and_a_placeholder_in_it_is_told() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let api_url = format!("https://{NAME}:{}/v1", origin.addr.port());
    let proxy = Proxy::with(origin.addr, &ca, Setup { api_url, ..Setup::default() }).await;
    let mut client = proxy.client(H1).await;
    client.send(origin.addr.port(), get("/other")).await.unwrap();
    client.send(origin.addr.port(), get("/other")).await.unwrap();
    assert_eq!(origin.seen()[0].headers["authorization"], "Bearer authsome-proxy-managed");
    assert_eq!(
        proxy.said(),
        [
            format!("{NAME}: no connected provider claims this path; forwarded unchanged"),
            format!("placeholder sent to {NAME}: no connected provider claims it")
        ]
    );
    assert_eq!(proxy.records(2).await[0]["decision"], "forwarded");
}

#[tokio::test]
async fn a_host_no_provider_claims_keeps_its_own_tls() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, "www.acme.test", BOTH).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let mut stream = proxy.tls_trusting(&ca.der, "www.acme.test", H1).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    drop(stream);
    let record = &proxy.records(1).await[0];
    assert_eq!((&record["protocol"], &record["decision"], &record["host"]), (&"tls".into(), &"forwarded".into(), &"www.acme.test".into()));
    assert!(proxy.said().contains(&"www.acme.test: no connected provider; forwarded unchanged".to_owned()));
}

#[tokio::test]
async fn two_providers_on_one_host_are_never_injected() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let api_url = format!("https://{NAME}:{}", origin.addr.port());
    let proxy = Proxy::with(origin.addr, &ca, Setup { api_url, rivals: 1, ..Setup::default() }).await;
    for _ in 0..2 {
        proxy.tls_trusting(&ca.der, NAME, H1).await.unwrap();
    }
    let said = proxy.said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with(&format!("ambiguous host match: {NAME} claimed by acme and rival-0; not injected")), "{said:?}");
}

#[tokio::test]
async fn a_client_with_its_own_roots_is_told_of_once() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    for _ in 0..2 {
        proxy.tls_trusting(&ca.der, NAME, H1).await.unwrap_err();
    }
    let records = proxy.records(2).await;
    assert_eq!(records[1]["blame"], "downstream");
    let said = proxy.said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with(&format!("{NAME}: the client rejected authsome's certificate (pinned or own trust store)")), "{said:?}");
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_refused_request_never_leaves() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let port = origin.addr.port();
    let own = format!("{NAME}:{port}");
    let shapes = [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: {own}\r\nHost: {own}\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {own}\r\nHost: evil.test\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: user@{own}\r\n\r\n"), 400),
        ("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_owned(), 421),
        (format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"), 421),
        (format!("GET / HTTP/1.1\r\nHost: {NAME}:1\r\n\r\n"), 421),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(), 421),
        (format!("GET https://evil.test/ HTTP/1.1\r\nHost: {own}\r\n\r\n"), 421),
        (format!("GET https://{own}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"), 421),
        (format!("GET https://user@{own}/ HTTP/1.1\r\nHost: {own}\r\n\r\n"), 400),
        (format!("GET http://{own}/ HTTP/1.1\r\nHost: {own}\r\n\r\n"), 400),
        (format!("CONNECT {own} HTTP/1.1\r\nHost: {own}\r\n\r\n"), 400),
        (format!("CONNECT evil.test:443 HTTP/1.1\r\nHost: {own}\r\n\r\n"), 400),
    ];
    for (request, status) in &shapes {
        let answer = proxy.raw(request.as_bytes(), "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert!(answer.contains("x-authsome-error: authority-mismatch\r\n"), "{request:?}: {answer}");
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    let records = proxy.records(shapes.len()).await;
    assert!(records.iter().all(|record| record["decision"] == "refused"), "{records:?}");
}

#[tokio::test]
async fn what_is_not_http_is_refused_or_forwarded_as_one_request() {
    let ca = Ca::new();
    let own = |port: u16| format!("Host: {NAME}:{port}\r\n");
    let smuggled = "GET /smuggled HTTP/1.1\r\n";
    for (name, head, body) in [
        ("length and chunked", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("chunked and length", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"),
        ("two lengths", "Content-Length: 4\r\nContent-Length: 5\r\n", "abcd"),
        ("length list", "Content-Length: 4, 5\r\n", "abcd"),
        ("signed length", "Content-Length: +4\r\n", "abcd"),
        ("unknown coding", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("chunked is not last", "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("space before the colon", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("obs-fold", "X-A: b\r\n Transfer-Encoding: chunked\r\n", ""),
        ("folded host", "X-A: b\r\n\tHost: evil.test\r\n", ""),
        ("NUL", "X-A: b\0c\r\n", ""),
        ("bare CR", "X-A: b\rX-B: c\r\n", ""),
        ("bare LF", "X-A: b\nX-B: c\r\n", ""),
        ("chunk extension", "Transfer-Encoding: chunked\r\n", "3;a=\"b\"\r\nabc\r\n0\r\n\r\n"),
        ("bad chunk size", "Transfer-Encoding: chunked\r\n", "0x3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let origin = Origin::start(&ca, NAME, H1).await;
        let proxy = Proxy::before(origin.addr, &ca).await;
        let request = format!("POST /first HTTP/1.1\r\n{}{head}\r\n{body}", own(origin.addr.port()));
        let answer = proxy.raw(request.as_bytes(), "\r\n\r\n").await;
        let seen = origin.seen();
        let whole = seen.iter().all(|seen| seen.uri == "/first") && seen.len() <= 1;
        let framed = seen.iter().all(|seen| {
            let length = seen.headers.get_all("content-length").iter().count();
            let coding = seen.headers.get_all("transfer-encoding").iter().count();
            length + coding <= 1 && seen.headers["host"] == format!("{NAME}:{}", origin.addr.port())
        });
        assert!(whole && framed, "{name}: {seen:?}");
        assert!(!seen.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{name}: {answer:?} {seen:?}");
        // Whatever followed as a second request is one only if the first ended before it.
        let request =
            format!("POST /first HTTP/1.1\r\n{}{head}\r\n{body}{smuggled}{}\r\n", own(origin.addr.port()), own(origin.addr.port()));
        proxy.raw(request.as_bytes(), "\r\n\r\n").await;
        for seen in origin.seen() {
            assert!(["/first", "/smuggled"].contains(&seen.uri.as_str()), "{name}: {seen:?}");
            assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"), "{name}");
        }
    }
}

#[tokio::test]
async fn an_h2_request_for_another_authority_is_misdirected() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let stream = proxy.tls(NAME, H2).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let port = origin.addr.port();
    for (authority, host, status) in [
        ("evil.test".to_owned(), None, 421),
        (NAME.to_owned(), None, 421),
        (format!("{NAME}:{port}"), Some("evil.test"), 421),
        (format!("user@{NAME}:{port}"), None, 400),
        (format!("{NAME}:{port}"), Some(NAME), 421),
    ] {
        let mut request = Request::get(format!("https://{authority}/")).version(Version::HTTP_2);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        match sender.send_request(request.body(empty()).unwrap()).await {
            Ok(response) => {
                assert_eq!(response.status(), status, "{authority} {host:?}");
                assert_eq!(response.headers()["x-authsome-error"], "authority-mismatch");
            }
            // hyper and h2 refuse userinfo in `:authority` themselves (RFC 9113 §8.3.1).
            Err(error) => assert!(authority.contains('@'), "{authority}: {error}"),
        }
    }
    assert!(origin.seen().is_empty());
    let good = Request::get(format!("https://{NAME}:{port}/")).body(empty()).unwrap();
    assert_eq!(sender.send_request(good).await.unwrap().status(), 200);
}

#[tokio::test]
async fn hop_by_hop_fields_neither_pass_nor_take_the_key_with_them() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, H1).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {NAME}:{}\r\nConnection: authorization, x-private, close\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers, gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nAuthorization: Bearer mine\r\nAuthorization: Bearer mine too\r\nX-Forwarded-Host: evil.test\r\n\r\n",
        origin.addr.port()
    );
    proxy.raw(request.as_bytes(), "\r\n\r\n").await;
    let headers = &origin.seen()[0].headers;
    assert_eq!(headers.get_all("authorization").iter().collect::<Vec<_>>(), [&format!("Bearer {KEY}")]);
    for name in ["x-private", "keep-alive", "upgrade", "http2-settings", "connection"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(headers["te"], "trailers");
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways() {
    let ca = Ca::new();
    for (child, server) in [(H1, H1), (H1, BOTH), (H2, H1), (H2, BOTH)] {
        let origin = Origin::start(&ca, NAME, server).await;
        let proxy = Proxy::before(origin.addr, &ca).await;
        let mut client = proxy.client(child).await;
        let (sender, body) = channel();
        // Each chunk is sent only once the one before has come back, so nothing waits for the whole.
        sender.send(Frame::data(Bytes::from_static(b"chunk"))).unwrap();
        let request = Request::post("/echo").header("te", "trailers").header("trailer", "x-check").body(body).unwrap();
        let mut response = client.send(origin.addr.port(), request).await.unwrap().into_body();
        for _ in 0..3 {
            let frame = response.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "chunk");
            sender.send(Frame::data(Bytes::from_static(b"chunk"))).unwrap();
        }
        let trailers = HeaderMap::from_iter([("x-check".parse().unwrap(), "done".parse().unwrap())]);
        sender.send(Frame::trailers(trailers.clone())).unwrap();
        drop(sender);
        assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "chunk");
        assert_eq!(response.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers, "{child:?} {server:?}");
        assert!(response.frame().await.is_none());
        let record = &proxy.records(1).await[0];
        assert_eq!((&record["sent"], &record["received"]), (&20.into(), &20.into()));
    }
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let ca = Ca::new();
    for (child, server) in [(H1, H1), (H2, BOTH)] {
        let origin = Origin::start(&ca, NAME, server).await;
        let proxy = Proxy::before(origin.addr, &ca).await;
        let mut response = proxy.client(child).await.send(origin.addr.port(), get("/events")).await.unwrap().into_body();
        for i in 0..5 {
            let event = format!("data: {i}\n\n");
            origin.events.send(event.clone().into()).unwrap();
            assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), event);
        }
    }
}

#[tokio::test]
async fn responses_without_a_body_keep_their_meaning() {
    let ca = Ca::new();
    for (child, server) in [(H1, H1), (H1, BOTH), (H2, H1), (H2, BOTH)] {
        let origin = Origin::start(&ca, NAME, server).await;
        let proxy = Proxy::before(origin.addr, &ca).await;
        let mut client = proxy.client(child).await;
        let port = origin.addr.port();
        let head = client.send(port, Request::head("/head").body(empty()).unwrap()).await.unwrap();
        assert_eq!(head.headers()["content-length"], "1234", "{child:?} {server:?}");
        for (path, status) in [("/204", 204), ("/304", 304), ("/early", 403)] {
            let response = client.send(port, Request::post(path).body(text("body")).unwrap()).await.unwrap();
            assert_eq!(response.status(), status);
            response.into_body().collect().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_response_may_come_before_the_request_ends() {
    let ca = Ca::new();
    for (child, server) in [(H1, H1), (H2, BOTH)] {
        let origin = Origin::start(&ca, NAME, server).await;
        let proxy = Proxy::before(origin.addr, &ca).await;
        let (sender, body) = channel();
        sender.send(Frame::data(Bytes::from_static(b"start"))).unwrap();
        let response = proxy.client(child).await.send(origin.addr.port(), Request::post("/early").body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no need to read on");
        drop(sender);
    }
}

/// An echo begins to answer before it reads, and so says nothing in between.
#[tokio::test]
async fn an_answer_may_come_before_the_body_that_it_needs() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, H1).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let mut stream = proxy.tls(NAME, NONE).await.unwrap();
    let head = format!("POST /echo HTTP/1.1\r\nHost: {NAME}:{}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", origin.addr.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut begun = [0; 15];
    stream.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200 OK");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    while !answer.contains("hello") {
        let mut chunk = [0; 1024];
        let n = stream.read(&mut chunk).await.unwrap();
        assert_ne!(n, 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
}

#[tokio::test]
async fn an_answer_cut_off_is_not_a_whole_one() {
    let ca = Ca::new();
    for (child, server) in [(H1, H1), (H1, BOTH), (H2, H1), (H2, BOTH)] {
        let origin = Origin::start(&ca, NAME, server).await;
        let proxy = Proxy::before(origin.addr, &ca).await;
        let response = proxy.client(child).await.send(origin.addr.port(), get("/abort")).await.unwrap();
        let mut body = response.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "partial");
        origin.events.send(Bytes::new()).unwrap();
        assert!(body.frame().await.unwrap().is_err(), "{child:?} {server:?}");
        assert_eq!(proxy.records(1).await[0]["blame"], "upstream");
    }
}

/// HTTP/1.0 marks a body's end by closing, so only the missing close_notify tells a broken end from a whole answer (RFC 9112 §9.8).
#[tokio::test]
async fn an_http10_answer_cut_off_lacks_its_close_notify() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, H1).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let mut stream = proxy.tls(NAME, NONE).await.unwrap();
    stream.write_all(format!("GET /abort HTTP/1.0\r\nHost: {NAME}:{}\r\n\r\n", origin.addr.port()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("partial") {
        answer.push(char::from(stream.read_u8().await.unwrap()));
    }
    origin.events.send(Bytes::new()).unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert!([std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset].contains(&error.kind()), "{error}");
}

#[tokio::test]
async fn an_upgrade_joins_both_sides() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let request = Request::get("/upgrade").header("connection", "upgrade").header("upgrade", "shout").body(empty()).unwrap();
    let response = proxy.client(H1).await.send(origin.addr.port(), request).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["upgrade"]), (101, &"shout".parse().unwrap()));
    shout(response).await;
    assert_eq!(origin.seen()[0].headers["authorization"], format!("Bearer {KEY}"));

    let mut request = Request::connect("/upgrade").body(empty()).unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("shout"));
    let response = proxy.client(H2).await.send(origin.addr.port(), request).await.unwrap();
    assert_eq!(response.status(), 200);
    shout(response).await;
    assert_eq!(origin.seen()[1].headers["authorization"], format!("Bearer {KEY}"));

    assert!(proxy.records(2).await.iter().all(|record| record["sent"] == 10 && record["received"] == 10));

    // In HTTP/1.1 to a server that does not take it in HTTP/2.
    let origin = Origin::start(&ca, NAME, H1).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let mut request = Request::connect("/upgrade").body(empty()).unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let response = proxy.client(H2).await.send(origin.addr.port(), request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers().contains_key("upgrade")), (200, false));
    shout(response).await;
    let seen = &origin.seen()[0];
    assert_eq!((seen.version, &seen.headers["upgrade"]), (Version::HTTP_11, &"websocket".parse().unwrap()));
    assert_eq!(seen.headers["sec-websocket-key"].len(), 24);
}

async fn shout(response: http::Response<hyper::body::Incoming>) {
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for _ in 0..2 {
        io.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        io.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"HELLO");
    }
    io.shutdown().await.unwrap();
    assert_eq!(io.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_upstream_that_cannot_be_verified_gets_nothing() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    for (signer, name) in [(&stranger, NAME), (&ca, "www.acme.test")] {
        let origin = Origin::start(signer, name, BOTH).await;
        let proxy = Proxy::before(origin.addr, &ca).await;
        for child in [H1, H2] {
            let mut client = proxy.client(child).await;
            for _ in 0..2 {
                let response = client.send(origin.addr.port(), get("/")).await.unwrap();
                assert_eq!(
                    (response.status().as_u16(), &response.headers()["x-authsome-error"]),
                    (502, &"upstream-certificate".parse().unwrap())
                );
                let body = response.into_body().collect().await.unwrap().to_bytes();
                let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert!(document["error"].as_str().unwrap().starts_with("authsome: "), "{document}");
                assert!(document["hint"].as_str().unwrap().contains("--upstream-ca"), "{document}");
            }
        }
        assert!(origin.seen().is_empty());
        assert_eq!(proxy.said().len(), 1, "{:?}", proxy.said());
    }
}

#[tokio::test]
async fn a_credential_that_cannot_be_had_is_explained() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let api_url = format!("https://{NAME}:{}", origin.addr.port());
    let proxy = Proxy::with(origin.addr, &ca, Setup { api_url, available: false, ..Setup::default() }).await;
    let response = proxy.client(BOTH).await.send(origin.addr.port(), get("/")).await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-authsome-error"], "credential-unavailable");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "{\"error\":\"authsome: acme: the token could not be refreshed\",\"hint\":\"authsome login acme\"}\n");
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn bad_input_hurts_only_its_own_connection() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let long_hello = [&b"\x16\x03\x01\x40\x00\x01\x00\xff\xff"[..], &[0; 16_380]].concat();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: api.acme.test\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00",
        &[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff],
        &long_hello,
        &[0xff; 70_000],
        b"",
    ] {
        let mut stream = proxy.tcp().await;
        // The proxy may have hung up already.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let response = proxy.client(H1).await.send(origin.addr.port(), get("/")).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let server = tcp_server(|mut stream| async move {
        stream.write_all(b"220 mail.acme.test\r\n").await.unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).await.unwrap();
        stream.write_all(&line).await.unwrap();
    })
    .await;
    let proxy = Proxy::before(server, &Ca::new()).await;
    let mut stream = proxy.tcp().await;
    let mut greeting = [0; 20];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 mail.acme.test\r\n");
    stream.write_all(b"QUIT\r\n").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "QUIT\r\n");
    drop(stream);
    let record = &proxy.records(1).await[0];
    assert_eq!((&record["protocol"], &record["sent"], &record["received"]), (&"tcp".into(), &6.into(), &26.into()));
}

/// In whatever form a definition would have had it written, and wherever: for Twilio it is in what Basic encodes, for Telegram in the path.
#[tokio::test]
async fn a_definitions_own_placeholder_is_told() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let api_url = format!("https://{NAME}:{}/v1", origin.addr.port());
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("x:{OTHER_PLACEHOLDER}")));
    let in_path = format!("/bot{OTHER_PLACEHOLDER}/me");
    let in_query = format!("/other?key={OTHER_PLACEHOLDER}");
    for (path, value, told) in
        [("/other", basic.as_str(), true), (&in_path, "x", true), (&in_query, "x", true), ("/other", "Basic eDp5", false)]
    {
        let proxy = Proxy::with(origin.addr, &ca, Setup { api_url: api_url.clone(), ..Setup::default() }).await;
        let request = Request::get(path).header("authorization", value).body(empty()).unwrap();
        proxy.client(H1).await.send(origin.addr.port(), request).await.unwrap();
        let said = proxy.said();
        assert_eq!(
            said.contains(&format!("placeholder sent to {NAME}: no connected provider claims it")),
            told,
            "{path} {value}: {said:?}"
        );
    }
}

/// While the server thinks, in the middle of an answer, after an upload and in the middle of one: it sees its own connection end. With a farewell, a child
/// may only have said all.
#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let ca = Ca::new();
    let (saw, mut events) = tokio::sync::mpsc::unbounded_channel();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let saw = saw.clone();
        async move {
            let head = read_head(&mut stream).await.unwrap();
            match head.split(' ').nth(1) {
                Some("/answered") => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap(),
                Some("/sent") => drop(stream.read_exact(&mut [0; 8]).await.unwrap()),
                Some("/half-sent") => drop(stream.read_exact(&mut [0; 4]).await.unwrap()),
                _ => {}
            }
            saw.send("asked").unwrap();
            drop(stream.read(&mut [0]).await);
            saw.send("left").unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let upload = "Content-Length: 8\r\n\r\n";
    let waits = format!("Expect: 100-continue\r\n{upload}");
    for (path, rest) in [
        ("/", "\r\n"),
        ("/answered", "\r\n"),
        ("/answered", &waits),
        ("/sent", &format!("{upload}12345678")),
        ("/half-sent", &format!("{upload}1234")),
    ] {
        for reset in [false, true] {
            let mut client = proxy.tls(NAME, H1).await.unwrap();
            client.write_all(format!("PUT {path} HTTP/1.1\r\nHost: {NAME}:{}\r\n{rest}", addr.port()).as_bytes()).await.unwrap();
            assert_eq!(events.recv().await, Some("asked"));
            if reset {
                client.get_ref().0.set_zero_linger().unwrap();
            }
            drop(client);
            assert_eq!(events.recv().await, Some("left"), "{path} {reset}");
        }
    }
    proxy.records(10).await;
}

/// An upload that goes on after its answer has begun is read by a task that nobody waits for.
#[tokio::test]
async fn a_client_that_leaves_after_an_upload_that_was_answered_early_takes_it_along() {
    let ca = Ca::new();
    let (saw, mut events) = tokio::sync::mpsc::unbounded_channel();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let saw = saw.clone();
        async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
            stream.read_exact(&mut [0; 8]).await.unwrap();
            saw.send("sent").unwrap();
            drop(stream.read(&mut [0]).await);
            saw.send("left").unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut client = proxy.tls(NAME, H1).await.unwrap();
    client.write_all(format!("PUT / HTTP/1.1\r\nHost: {NAME}:{}\r\nContent-Length: 8\r\n\r\n", addr.port()).as_bytes()).await.unwrap();
    assert!(read_head(&mut client).await.unwrap().starts_with("HTTP/1.1 200"));
    client.read_exact(&mut [0; 4]).await.unwrap();
    client.write_all(b"12345678").await.unwrap();
    assert_eq!(events.recv().await, Some("sent"));
    drop(client);
    assert_eq!(events.recv().await, Some("left"));
}

/// By what its connection costs besides: with records of 1 KiB that is a fiftieth.
#[tokio::test]
async fn an_upload_goes_on_in_large_records() {
    const LENGTH: usize = 4 << 20;
    let ca = Ca::new();
    let origin = tls_server(ca.acceptor(NAME, H1), |mut stream| async move {
        read_head(&mut stream).await.unwrap();
        stream.read_exact(&mut vec![0; LENGTH]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let (count, mut counts) = tokio::sync::mpsc::unbounded_channel();
    let wire = tcp_server(move |mut stream| {
        let count = count.clone();
        async move {
            let mut onwards = TcpStream::connect(origin).await.unwrap();
            count.send(tokio::io::copy_bidirectional(&mut stream, &mut onwards).await.unwrap().0).unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(wire, &ca).await;
    let upload = Request::put("/").body(octets(vec![b'x'; LENGTH])).unwrap();
    let answer = proxy.client(H1).await.send(wire.port(), upload).await.unwrap();
    assert_eq!(answer.status(), 200);
    let wire = counts.recv().await.unwrap() as usize;
    assert!(wire < LENGTH + LENGTH / 200, "{} octets besides", wire - LENGTH);
}

#[tokio::test]
async fn plain_http_is_never_injected() {
    let (saw, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let server = tcp_server(move |mut stream| {
        let saw = saw.clone();
        async move {
            let mut head = String::new();
            stream.read_to_string(&mut head).await.unwrap();
            saw.send(head).unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(server, &Ca::new()).await;
    let mut stream = proxy.tcp().await;
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}:{}\r\nAuthorization: Bearer authsome-proxy-managed\r\n\r\n", server.port());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(heads.recv().await.unwrap(), request);
    assert_eq!(proxy.said(), ["placeholder sent to 127.0.0.1: no connected provider claims it"]);
    drop(stream);
    let record = &proxy.records(1).await[0];
    assert_eq!((&record["protocol"], &record["decision"]), (&"http".into(), &"forwarded".into()));
}

#[tokio::test]
async fn a_relay_carries_all_bytes_and_the_end_of_each_direction() {
    const LENGTH: usize = 4 << 20;
    let pattern = |seed: usize| (0..LENGTH).map(|i| (i * 31 + i / 251 + seed) as u8).collect::<Vec<_>>();
    // Reads to the end before it answers, so only a half-close passed on lets it.
    let server = tcp_server(move |mut stream| async move {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(1));
        stream.write_all(&pattern(2)).await.unwrap();
    })
    .await;
    let proxy = Proxy::before(server, &Ca::new()).await;
    let mut stream = proxy.tcp().await;
    stream.write_all(&pattern(1)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert!(got == pattern(2));
    let record = &proxy.records(1).await[0];
    assert_eq!((&record["sent"], &record["received"]), (&LENGTH.into(), &LENGTH.into()));
}

#[tokio::test]
async fn a_reset_is_passed_on_in_both_directions() {
    let server = tcp_server(|mut stream| async move {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        if byte == *b"r" {
            stream.set_zero_linger().unwrap();
        } else {
            let error = stream.read(&mut byte).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    })
    .await;
    let proxy = Proxy::before(server, &Ca::new()).await;
    let mut stream = proxy.tcp().await;
    stream.write_all(b"r").await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(proxy.records(1).await[0]["blame"], "upstream");

    let mut stream = proxy.tcp().await;
    stream.write_all(b"x").await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    assert_eq!(proxy.records(2).await[1]["blame"], "downstream");
}

#[tokio::test]
async fn a_refused_connection_is_a_reset() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::before(closed, &Ca::new()).await;
    let mut stream = proxy.tcp().await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let record = &proxy.records(1).await[0];
    assert_eq!((&record["decision"], &record["blame"]), (&"failed".into(), &"upstream".into()));
}

#[tokio::test]
async fn tls_that_is_not_http_or_names_no_host_is_left_alone() {
    let ca = Ca::new();
    let origin = tls_server(ca.acceptor(NAME, &["xmpp-client"]), |mut stream| async move {
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let proxy = Proxy::before(origin, &ca).await;
    let mut stream = proxy.tls_trusting(&ca.der, NAME, &["xmpp-client"]).await.unwrap();
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "hello");
    drop(stream);
    assert_eq!(proxy.records(1).await[0]["decision"], "forwarded");
}

#[tokio::test]
async fn a_child_that_leaves_early_is_recorded() {
    let ca = Ca::new();
    let (reached, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let origin = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let reached = reached.clone();
        async move {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            reached.send(()).unwrap();
            // Never answers; ends when the proxy gives up on it.
            let _ = stream.read(&mut head).await;
        }
    })
    .await;
    let proxy = Proxy::before(origin, &ca).await;
    let mut client = proxy.client(H2).await;
    tokio::select! {
        _ = client.send(origin.port(), get("/")) => panic!("answered"),
        _ = requests.recv() => {}
    }
    drop(client);
    let record = &proxy.records(1).await[0];
    assert_eq!((&record["blame"], &record["error"]), (&"downstream".into(), &"the client left before the response".into()));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_that_was_not_redirected_is_refused() {
    let ca = Ca::new();
    let proxy = Proxy::before("203.0.113.7:443".parse().unwrap(), &ca).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(authsome::proxy::serve(vec![listener], proxy.context.clone()));
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert!(proxy.records(2).await.iter().all(|record| record["decision"] == "refused"));
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_refused() {
    let ca = Ca::new();
    let origin = tls_server(ca.acceptor(NAME, H1), |mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut head).await;
    })
    .await;
    let proxy = Proxy::before(origin, &ca).await;
    let response = proxy.client(H1).await.send(origin.port(), get("/")).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["x-authsome-error"]), (502, &"upstream-protocol".parse().unwrap()));
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let proxy = Proxy::before(origin.addr, &ca).await;
    let head = format!("GET / HTTP/1.1\r\nHost: {NAME}:{}\r\nX-Long: {}", origin.addr.port(), "x".repeat(200_000));
    let answer = proxy.raw(head.as_bytes(), "\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(origin.seen().is_empty());
    assert_eq!(proxy.client(H1).await.send(origin.addr.port(), get("/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn names_keep_their_case_and_a_child_that_has_said_all_is_answered() {
    let ca = Ca::new();
    let (saw, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let origin = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let saw = saw.clone();
        async move {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                head.push(char::from(stream.read_u8().await.unwrap()));
            }
            saw.send(head).unwrap();
            stream.write_all(b"HTTP/1.1 200 Fine\r\nX-AnsWer: yes\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            let _ = stream.read_u8().await;
        }
    })
    .await;
    let proxy = Proxy::before(origin, &ca).await;
    let mut stream = proxy.tls(NAME, NONE).await.unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {NAME}:{}\r\nX-QuesTion: what\r\n\r\n", origin.port()).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 200 Fine\r\nX-AnsWer: yes\r\nContent-Length: 2\r\n\r\nok");
    let head = heads.recv().await.unwrap();
    assert!(head.contains("\r\nX-QuesTion: what\r\n"), "{head}");
}

#[tokio::test]
async fn a_denied_request_never_leaves_and_an_allowed_one_is_injected() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let port = origin.addr.port();
    let allow = format!("GET {NAME}:{port}/v1/**");
    let setup = Setup { api_url: format!("https://{NAME}:{port}"), allow: &[&allow], deny: &["*/v1/admin/**"], ..Setup::default() };
    let proxy = Proxy::with(origin.addr, &ca, setup).await;
    for alpn in [H1, H2] {
        let mut client = proxy.client(alpn).await;
        for (request, hint) in [
            (get("/v2"), Some(format!("--allow 'GET {NAME}:{port}/v2'"))),
            (get("/v1/%61dmin/x"), None),
            (get("/v1/../v2"), Some(format!("--allow 'GET {NAME}:{port}'"))),
        ] {
            let response = client.send(port, request).await.unwrap();
            assert_eq!((response.status(), &response.headers()["x-authsome-error"]), (StatusCode::FORBIDDEN, &"denied".parse().unwrap()));
            assert_eq!(response.headers()["content-type"], "application/json");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(document["error"].as_str().unwrap().starts_with("authsome: GET "), "{document}");
            // A path that can be read in two ways also falls under the deny rule.
            if let Some(hint) = hint.filter(|hint| hint.contains("v2")) {
                assert_eq!(document["hint"], hint.as_str());
            }
        }
        assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    }
    assert_eq!(proxy.client(H1).await.send(port, get("/v1/x")).await.unwrap().status(), 200);
    assert_eq!(origin.seen()[0].headers["authorization"], format!("Bearer {KEY}"));
    let records = proxy.records(6).await;
    let denied: Vec<_> = records.iter().filter(|record| record["decision"] == "denied" && record["status"] == 403).collect();
    assert_eq!(denied.len(), 6, "{records:?}");
    assert!(denied[1]["reason"] == "denied by the rule `*/v1/admin/**`", "{denied:?}");
}

#[tokio::test]
async fn a_rule_on_methods_opens_a_host_that_no_provider_claims() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    let port = origin.addr.port();
    let proxy =
        Proxy::with(origin.addr, &ca, Setup { api_url: "https://elsewhere.test".into(), deny: &["DELETE *"], ..Setup::default() }).await;
    let mut client = proxy.client(H2).await;
    assert_eq!(client.send(port, get("/")).await.unwrap().status(), 200);
    assert_eq!(origin.seen()[0].headers["authorization"], "Bearer authsome-proxy-managed", "nothing is injected");
    let mut delete = get("/");
    *delete.method_mut() = http::Method::DELETE;
    assert_eq!(client.send(port, delete).await.unwrap().status(), 403);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_relayed_name_counts_only_for_its_own_address() {
    let ca = Ca::new();
    let origin = Origin::start(&ca, NAME, BOTH).await;
    for (allow, works) in [(NAME, false), ("127.0.0.1", true), ("127.0.0.0/8", true), ("other.test", false)] {
        let proxy =
            Proxy::with(origin.addr, &ca, Setup { api_url: "https://elsewhere.test".into(), allow: &[allow], ..Setup::default() }).await;
        assert_eq!(proxy.tls_trusting(&ca.der, NAME, H1).await.is_ok(), works, "{allow}");
        if !works {
            let record = &proxy.records(1).await[0];
            assert_eq!((&record["decision"], &record["protocol"]), (&"denied".into(), &"tls".into()));
        }
    }
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn what_is_not_https_is_denied_by_its_address() {
    let ca = Ca::new();
    let addr = tcp_server(|mut stream| async move { drop(stream.write_all(b"220 hello\r\n").await) }).await;
    let proxy = Proxy::with(addr, &ca, Setup { allow: &[NAME], ..Setup::default() }).await;
    let mut stream = proxy.tcp().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: api.acme.test\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains(&format!("add `--allow '127.0.0.1:{}'`", addr.port())), "{answer}");
    for first in [&b"\0binary"[..], b""] {
        let mut stream = proxy.tcp().await;
        stream.write_all(first).await.unwrap();
        let error = stream.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert!(proxy.records(3).await.iter().all(|record| record["decision"] == "denied"));
}

#[tokio::test]
async fn hesitation_evades_no_rule() {
    let ca = Ca::new();
    let addr = tcp_server(|mut stream| async move { drop(stream.write_all(b"200 OK").await) }).await;
    for deny in ["http://*", "DELETE http://*"] {
        let proxy = Proxy::with(addr, &ca, Setup { deny: &[deny], ..Setup::default() }).await;
        let mut stream = proxy.tcp().await;
        stream.write_all(b"DELET").await.unwrap();
        let error = stream.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{deny}");
        assert!(proxy.said()[0].starts_with("127.0.0.1: "), "{:?}", proxy.said());
    }
}
