//! Header fields as they are passed on: in the order they came in, without those of the connection they came by.

use http::{HeaderMap, HeaderName, header};

/// Fields about one connection (RFC 9110 §7.6.1), which are errors in HTTP/2 (RFC 9113 §8.2.2). `te` is one as well, but for its `trailers`.
pub const OF_CONNECTION: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// As HTTP/1.1 has them (RFC 9112 §5), with the empty line after them.
pub fn write(headers: &HeaderMap, to: &mut Vec<u8>) {
    for (name, value) in headers {
        to.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    to.extend(b"\r\n");
}

/// Takes fields out and leaves the rest in order, which `HeaderMap::remove` does not.
pub fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    if headers.keys().all(&keep) {
        return;
    }
    let kept = HeaderMap::with_capacity(headers.len());
    let mut current = None;
    // A field's further values come without its name.
    for (name, value) in std::mem::replace(headers, kept) {
        current = name.or(current);
        if let Some(name) = current.as_ref().filter(|name| keep(name)) {
            headers.append(name, value);
        }
    }
}
