//! The data plane in process: real TLS on both sides, real HTTP, raw bytes.

#[path = "support/proxy.rs"]
mod support;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use support::{Ca, KEY, NAME, Origin, Proxy, Setup, channel, empty, tcp_server, text, tls_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const H1: &[&str] = &["http/1.1"];
const H2: &[&str] = &["h2"];
const BOTH: &[&str] = &["h2", "http/1.1"];
const NONE: &[&str] = &[];

fn get(path: &str) -> Request<authsome::upstream::Body> {
    Request::get(path).header("authorization", "Bearer authsome-proxy-managed").body(empty()).unwrap()
}

#[tokio::test]
async fn the_key_is_injected_whatever_each_side_speaks() {
    let ca = Ca::new();
    for (child, server, sees) in [
        (NONE, BOTH, Version::HTTP_11),
        (H1, BOTH, Version::HTTP_11),
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
            assert_eq!((&record["verdict"], &record["status"], &record["provider"]), (&"injected".into(), &200.into(), &"acme".into()));
        }
    }
}
