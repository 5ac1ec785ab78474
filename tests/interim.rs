//! What a server says before its final answer, with raw octets on either side.

// A test's failure is a panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/proxy.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use std::{net::SocketAddr, sync::Arc};
use support::{Ca, KEY, NAME, Proxy, Setup, empty, read_head, tls_server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use tokio_rustls::client::TlsStream;

const H1: &[&str] = &["http/1.1"];
const H2: &[&str] = &["h2"];

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
const FINAL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An HTTP/1.1 origin that answers every request with `interim` at once, and with `last` when told to.
async fn origin(ca: &Ca, interim: impl Into<String>, last: &'static str) -> (SocketAddr, Arc<Notify>) {
    let (interim, go_on) = (interim.into(), Arc::new(Notify::new()));
    let told = go_on.clone();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let (interim, told) = (interim.clone(), told.clone());
        async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(interim.as_bytes()).await.unwrap();
                told.notified().await;
                stream.write_all(last.as_bytes()).await.unwrap();
                if !last.contains("content-length") {
                    return;
                }
            }
        }
    })
    .await;
    (addr, go_on)
}

async fn ask(stream: &mut TlsStream<TcpStream>, version: &str, port: u16) {
    stream.write_all(format!("GET / {version}\r\nHost: {NAME}:{port}\r\n\r\n").as_bytes()).await.unwrap();
}

async fn read_text(stream: &mut TlsStream<TcpStream>, length: usize) -> String {
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// The final answer is not even written before the child has had all that was said before it.
#[tokio::test]
async fn they_arrive_before_the_final_answer() {
    let ca = Ca::new();
    let interim = [
        "HTTP/1.1 102 Processing\r\n\r\n",
        HINTS,
        "HTTP/1.1 103 Early Hints\r\nLink: </b.js>\r\nX-Two: 1\r\nConnection: X-Hop\r\nX-Hop: gone\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\nx-two: 2\r\n\r\n",
        "HTTP/1.1 110 Of Its Own\r\n\r\n",
    ];
    let (addr, go_on) = origin(&ca, interim.concat(), FINAL).await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    for _ in 0..3 {
        ask(&mut stream, "HTTP/1.1", addr.port()).await;
        for head in [
            "HTTP/1.1 102 Processing\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nlink: </b.js>\r\nx-two: 1\r\nx-two: 2\r\n\r\n",
            "HTTP/1.1 110 \r\n\r\n",
        ] {
            assert_eq!(read_head(&mut stream).await.unwrap(), head);
        }
        go_on.notify_one();
        assert_eq!(read_text(&mut stream, FINAL.len()).await, FINAL);
    }
    for record in proxy.records(3).await {
        assert_eq!((&record["status"], &record["received"]), (&200.into(), &2.into()), "{record}");
    }
}

/// The child has asked for all before it reads.
#[tokio::test]
async fn pipelined_requests_keep_their_own() {
    const REQUESTS: usize = 10;
    let ca = Ca::new();
    let (addr, go_on) = origin(&ca, HINTS, FINAL).await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    for _ in 0..REQUESTS {
        ask(&mut stream, "HTTP/1.1", addr.port()).await;
    }
    for _ in 0..REQUESTS {
        assert_eq!(read_head(&mut stream).await.unwrap(), HINTS.replace("Link", "link"));
        go_on.notify_one();
        assert_eq!(read_text(&mut stream, FINAL.len()).await, FINAL);
    }
}

/// With the final answer in one write, for requests in one write.
#[tokio::test]
async fn they_arrive_before_a_final_answer_that_is_there() {
    const REQUESTS: usize = 10;
    let ca = Ca::new();
    let both = [HINTS, HINTS, FINAL].concat();
    let answer = both.clone();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let answer = answer.clone();
        async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    let requests = format!("GET / HTTP/1.1\r\nHost: {NAME}:{}\r\n\r\n", addr.port()).repeat(REQUESTS);
    stream.write_all(requests.as_bytes()).await.unwrap();
    for _ in 0..REQUESTS {
        assert_eq!(read_text(&mut stream, both.len()).await, both.replace("Link", "link"));
    }
}

#[tokio::test]
async fn the_key_does_not_come_back_in_them() {
    let ca = Ca::new();
    let (addr, go_on) = origin(&ca, format!("HTTP/1.1 103 Early Hints\r\nX-Echo: Bearer {KEY}\r\n\r\n"), FINAL).await;
    for (scrub, echo, hits) in [(true, "*".repeat(KEY.len()), 1), (false, KEY.to_owned(), 0)] {
        let api_url = format!("https://{NAME}:{}", addr.port());
        let proxy = Proxy::with(addr, &ca, Setup { api_url, scrub, ..Setup::default() }).await;
        let mut stream = proxy.tls(NAME, H1).await.unwrap();
        ask(&mut stream, "HTTP/1.1", addr.port()).await;
        let head = read_head(&mut stream).await.unwrap();
        assert_eq!(head, format!("HTTP/1.1 103 Early Hints\r\nx-echo: Bearer {echo}\r\n\r\n"));
        go_on.notify_one();
        assert_eq!(read_text(&mut stream, FINAL.len()).await, FINAL);
        drop(stream);
        let record = &proxy.records(1).await[0];
        assert_eq!(record["scrubbed"].as_u64().unwrap_or_default(), hits, "{record}");
    }
}

/// RFC 9110 §15.2: it knows of none.
#[tokio::test]
async fn a_child_of_http_1_0_gets_none() {
    let ca = Ca::new();
    let (addr, go_on) = origin(&ca, HINTS, FINAL).await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    ask(&mut stream, "HTTP/1.0", addr.port()).await;
    go_on.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, FINAL.replace("HTTP/1.1", "HTTP/1.0"));
}

/// An origin that breaks off after one, and a switch of protocols.
#[tokio::test]
async fn they_precede_whatever_comes() {
    let ca = Ca::new();
    let hints = HINTS.replace("Link", "link");
    let (addr, go_on) = origin(&ca, HINTS, "").await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    ask(&mut stream, "HTTP/1.1", addr.port()).await;
    assert_eq!(read_head(&mut stream).await.unwrap(), hints);
    go_on.notify_one();
    assert_eq!(read_head(&mut stream).await, None);

    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n";
    let (addr, go_on) = origin(&ca, HINTS, switch).await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: {NAME}:{}\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n", addr.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut stream).await.unwrap(), hints);
    go_on.notify_one();
    assert!(read_head(&mut stream).await.unwrap().starts_with("HTTP/1.1 101 "));
}

/// A child that leaves after one is seen to leave: the server's connection ends as well.
#[tokio::test]
async fn a_child_may_leave_after_one() {
    let ca = Ca::new();
    let (left, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let left = left.clone();
        async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(HINTS.as_bytes()).await.unwrap();
            left.send(stream.read(&mut [0]).await.unwrap_or(0)).unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    ask(&mut stream, "HTTP/1.1", addr.port()).await;
    read_head(&mut stream).await.unwrap();
    drop(stream);
    assert_eq!(seen.recv().await, Some(0));
}

/// The server says more than can be on its way to a child that does not read. Some of it is dropped, in whole answers, and the final one comes.
#[tokio::test]
async fn a_flood_is_cut_to_whole_answers() {
    const FLOOD: usize = 16 << 20;
    let ca = Ca::new();
    let hints = format!("HTTP/1.1 103 Early Hints\r\nx: {}\r\n\r\n", "y".repeat(8000));
    let (one, count) = (hints.clone(), FLOOD / hints.len());
    let said_all = Arc::new(Notify::new());
    let all = said_all.clone();
    let addr = tls_server(ca.acceptor(NAME, H1), move |mut stream| {
        let (one, all) = (one.clone(), all.clone());
        async move {
            read_head(&mut stream).await.unwrap();
            for _ in 0..count {
                stream.write_all(one.as_bytes()).await.unwrap();
            }
            stream.write_all(FINAL.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            all.notify_one();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut stream = proxy.tls(NAME, H1).await.unwrap();
    ask(&mut stream, "HTTP/1.1", addr.port()).await;
    said_all.notified().await;
    let mut seen = 0;
    let last = loop {
        let head = read_head(&mut stream).await.unwrap();
        if head != hints {
            break head;
        }
        seen += 1;
    };
    assert!((1..count).contains(&seen), "{seen}");
    assert_eq!(last + &read_text(&mut stream, 2).await, FINAL);
}

/// hyper tells of none in HTTP/2 and sends none, which is a stated limit; the final answer is whole.
#[tokio::test]
async fn in_http2_the_final_answer_comes_alone() {
    let ca = Ca::new();
    let addr = tls_server(ca.acceptor(NAME, H2), |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let hints = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
            respond.send_informational(hints).unwrap();
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"ok"), false).unwrap();
            body.send_trailers(HeaderMap::new()).unwrap();
        }
    })
    .await;
    let proxy = Proxy::before(addr, &ca).await;
    let mut client = proxy.client(H2).await;
    for _ in 0..2 {
        let response = client.send(addr.port(), Request::new(empty())).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().get("link")), (200, None));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    }
}
