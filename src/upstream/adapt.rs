//! One request in the shape that a connection's protocol wants.

use super::{Body, fields};
use crate::host::Target;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;

/// Octets of a `Sec-WebSocket-Key` before base64 (RFC 6455 §4.1).
const WEBSOCKET_KEY: usize = 16;

const WEBSOCKET: &str = "websocket";

/// HTTP/1.1: origin-form request line (RFC 9112 §3.2.1), `Host` where it was or else first (RFC 9110 §7.2). The host is the target's, whatever
/// the request said.
pub fn to_http1(request: &mut Request<Body>, target: &Target) {
    let from_h2 = request.version() == Version::HTTP_2 || is_websocket(request);
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = Uri::from(path(request.uri()));
    if is_websocket(request) {
        upgrade_to_websocket(request);
    }
    request.extensions_mut().remove::<hyper::ext::Protocol>();
    // Without this hyper leaves out the body of a GET whose length is not known.
    if !request.body().is_end_stream() && !request.headers().contains_key(header::CONTENT_LENGTH) {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let headers = request.headers_mut();
    if from_h2 {
        join_cookies(headers);
    }
    if !is_named(headers, target) && headers.insert(header::HOST, host(target)).is_none() {
        host_first(headers);
    }
}

/// Whether it asks for a WebSocket as HTTP/2 does (RFC 8441 §5).
pub fn is_websocket(request: &Request<Body>) -> bool {
    request.extensions().get::<hyper::ext::Protocol>().is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// The same as HTTP/1.1 says it (RFC 6455 §4.1).
fn upgrade_to_websocket(request: &mut Request<Body>) {
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    headers.insert(header::SEC_WEBSOCKET_KEY, websocket_key());
}

/// Any value serves: it only shows that the server knows WebSocket (RFC 6455 §1.3), so a random generator that fails leaves it at zero.
fn websocket_key() -> HeaderValue {
    let mut key = [0; WEBSOCKET_KEY];
    drop(rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut key));
    HeaderValue::try_from(BASE64_STANDARD.encode(key)).unwrap_or(HeaderValue::from_static(""))
}

/// Whether the one `Host` is the target's already, so that nothing has to be written.
fn is_named(headers: &HeaderMap, target: &Target) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    hosts.next().is_some_and(|host| target.is_plainly(host.as_bytes())) && hosts.next().is_none()
}

/// HTTP/2: `:scheme`, `:authority` and `:path` instead of `Host`, no header about a connection (RFC 9113 §8.2.2, §8.3.1).
pub fn to_h2(request: &mut Request<Body>, target: &Target) {
    *request.version_mut() = Version::HTTP_2;
    let path = path(request.uri());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Authority::try_from(authority(target)).ok();
    parts.path_and_query = Some(path.clone());
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(path));
    fields::retain(request.headers_mut(), |name| *name != header::HOST && !fields::OF_CONNECTION.contains(name));
}

fn host_first(headers: &mut HeaderMap) {
    let Some(host) = headers.remove(header::HOST) else { return };
    let mut first = HeaderMap::with_capacity(headers.len() + 1);
    first.insert(header::HOST, host);
    first.extend(std::mem::take(headers));
    *headers = first;
}

fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// As URLs write it: the port only when it is not the scheme's own.
fn authority(target: &Target) -> String {
    let text = target.to_string();
    text.strip_suffix(":443").map(str::to_owned).unwrap_or(text)
}

fn host(target: &Target) -> HeaderValue {
    // A host's characters and a port's digits are all visible ASCII, so the fallback is never taken.
    HeaderValue::try_from(authority(target)).unwrap_or(HeaderValue::from_static(""))
}

/// Several `cookie` fields, as HTTP/2 clients send them, become one before they go on in HTTP/1.1 (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::empty, *};

    fn request(uri: &str, headers: &[(&'static str, &'static str)]) -> Request<Body> {
        let mut request = Request::builder().uri(uri).body(empty()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn target(port: u16) -> Target {
        Target { host: "api.acme.test".parse().unwrap(), port }
    }

    fn lines(request: &Request<Body>) -> Vec<String> {
        request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn http1_has_origin_form_and_one_host() {
        for (uri, path) in
            [("https://evil.test/a?b=c", "/a?b=c"), ("/a?b=c", "/a?b=c"), ("/a%2f..?", "/a%2f..?"), ("https://evil.test", "/")]
        {
            let mut request =
                request(uri, &[("accept", "a"), ("host", "evil.test"), ("accept", "b"), ("cookie", "c=1"), ("cookie", "d=2")]);
            to_http1(&mut request, &target(443));
            assert_eq!((request.uri().to_string().as_str(), request.version()), (path, Version::HTTP_11));
            assert_eq!(lines(&request), ["accept: a", "accept: b", "host: api.acme.test", "cookie: c=1", "cookie: d=2"], "{uri}");
        }
        for hosts in
            [&["api.acme.test"][..], &["API.acme.test"], &["evil.test"], &["api.acme.test", "evil.test"], &["evil.test", "api.acme.test"]]
        {
            let headers: Vec<_> =
                hosts.iter().map(|host| ("host", *host)).chain([("accept", "a"), ("cookie", "c=1"), ("cookie", "d=2")]).collect();
            let mut request = request("/", &headers);
            to_http1(&mut request, &target(443));
            assert_eq!(lines(&request), ["host: api.acme.test", "accept: a", "cookie: c=1", "cookie: d=2"], "{hosts:?}");
        }
        let mut request = request("/", &[("accept", "a"), ("cookie", "c=1"), ("accept", "c"), ("cookie", "d=2")]);
        *request.version_mut() = Version::HTTP_2;
        to_http1(&mut request, &target(443));
        assert_eq!(lines(&request), ["host: api.acme.test", "accept: a", "accept: c", "cookie: c=1; d=2"], "from HTTP/2");
    }

    #[test]
    fn h2_has_an_authority_and_no_connection_headers() {
        let headers = [
            ("host", "evil.test"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "x"),
            ("z-last", "1"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("a-first", "2"),
        ];
        for uri in ["https://evil.test/a?b=c", "/a?b=c"] {
            let mut request = request(uri, &headers);
            to_h2(&mut request, &target(8443));
            assert_eq!((request.uri().to_string().as_str(), request.version()), ("https://api.acme.test:8443/a?b=c", Version::HTTP_2));
            assert_eq!(lines(&request), ["z-last: 1", "te: trailers", "a-first: 2"]);
        }
    }

    #[test]
    fn an_ipv6_host_is_bracketed() {
        let mut request = request("/", &[]);
        to_http1(&mut request, &Target { host: "2001:db8::1".parse().unwrap(), port: 443 });
        assert_eq!(request.headers()[header::HOST], "[2001:db8::1]");
    }
}
