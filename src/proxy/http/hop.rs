//! Fields that concern one connection only and end there (RFC 9110 §7.6.1).

use crate::upstream::fields::{OF_CONNECTION, retain};
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version, header};

/// Belongs to the `Upgrade: h2c` of RFC 7540 §3.2, which RFC 9113 withdrew.
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes them all, but keeps `te: trailers`, which goes end to end in practice (gRPC), and the upgrade asked for, if `upgrade`. A length beside a
/// transfer coding goes as well, since it is not the body's (RFC 9112 §6.3).
pub fn strip(headers: &mut HeaderMap, upgrade: bool) {
    let listed: Vec<HeaderName> = tokens(headers, header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
    let trailers = tokens(headers, header::TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let coded = headers.contains_key(header::TRANSFER_ENCODING);
    let upgrade = upgrade && headers.contains_key(header::UPGRADE);
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    retain(headers, |name| match *name {
        header::TE => trailers,
        header::CONTENT_LENGTH => !coded,
        header::CONNECTION | header::UPGRADE => upgrade,
        _ => !(OF_CONNECTION.contains(name) || listed.contains(name) || *name == HTTP2_SETTINGS),
    });
}

/// Whether the body has a transfer coding besides chunked, the one that hyper takes off. It ends here by name, so what it codes cannot go on.
pub fn is_coded(headers: &HeaderMap) -> bool {
    tokens(headers, header::TRANSFER_ENCODING).any(|coding| !["chunked", "identity"].iter().any(|known| coding.eq_ignore_ascii_case(known)))
}

/// Whether the connection ends with this message (RFC 9112 §9.3); of HTTP/1.0 that is taken for granted.
pub fn closes<B>(response: &Response<B>) -> bool {
    response.version() == Version::HTTP_10 || tokens(response.headers(), header::CONNECTION).any(|name| name.eq_ignore_ascii_case("close"))
}

/// Says that the connection ends with this message.
pub fn close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Whether this message asks for, or grants, an upgrade to one other protocol (RFC 9110 §7.8). Not to h2c, whose requests would pass unseen.
pub fn upgrades(headers: &HeaderMap) -> bool {
    let mut protocols = tokens(headers, header::UPGRADE);
    let protocol = protocols.next();
    tokens(headers, header::CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
        && protocol.is_some_and(|protocol| !protocol.eq_ignore_ascii_case("h2c"))
        && protocols.next().is_none()
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn what_stays() {
        for (lines, upgrade, want) in [
            (&[("accept", "*/*"), ("connection", "keep-alive"), ("keep-alive", "timeout=5")][..], false, &[("accept", "*/*")][..]),
            (
                &[("connection", "x-a, X-B"), ("connection", "x-c"), ("x-a", "1"), ("x-b", "2"), ("x-c", "3"), ("x-d", "4")],
                false,
                &[("x-d", "4")],
            ),
            (&[("te", "gzip, trailers;q=1"), ("te", "trailers")], false, &[("te", "trailers")]),
            (&[("te", "gzip")], false, &[]),
            (&[("transfer-encoding", "chunked"), ("proxy-connection", "close"), ("upgrade", "websocket")], false, &[]),
            (
                &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")],
                true,
                &[("connection", "Upgrade"), ("upgrade", "websocket")],
            ),
            (&[("http2-settings", "AAMAAABkAAQAAP__")], false, &[]),
            (&[("content-length", "3"), ("transfer-encoding", "chunked")], false, &[]),
        ] {
            let mut map = headers(lines);
            strip(&mut map, upgrade);
            assert_eq!(map, headers(want), "{lines:?}");
        }
    }

    #[test]
    fn what_stays_keeps_its_order() {
        let mut map = headers(&[("a", "1"), ("connection", "close"), ("b", "2"), ("te", "trailers"), ("c", "3"), ("b", "4"), ("d", "5")]);
        strip(&mut map, false);
        let lines: Vec<_> = map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(lines, ["a: 1", "b: 2", "b: 4", "te: trailers", "c: 3", "d: 5"]);
    }

    #[test]
    fn what_is_coded() {
        for (value, want) in [("chunked", false), ("Chunked", false), ("identity", false), ("gzip, chunked", true), ("gzip", true)] {
            assert_eq!(is_coded(&headers(&[("transfer-encoding", value)])), want, "{value}");
        }
        assert!(is_coded(&headers(&[("transfer-encoding", "x-deflate"), ("transfer-encoding", "chunked")])));
        assert!(!is_coded(&headers(&[("content-encoding", "gzip")])));
    }

    #[test]
    fn what_is_an_upgrade() {
        for (lines, want) in [
            (&[("connection", "upgrade"), ("upgrade", "websocket")][..], true),
            (&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], true),
            (&[("upgrade", "websocket")], false),
            (&[("connection", "upgrade")], false),
            (&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")], false),
            (&[("connection", "upgrade"), ("upgrade", "websocket, h2c")], false),
        ] {
            assert_eq!(upgrades(&headers(lines)), want, "{lines:?}");
        }
    }
}
