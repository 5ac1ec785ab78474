//! The shape of an HTTP request line (RFC 9112 §3) or the HTTP/2 preface (RFC 9113 §3.4), which has the same shape.

use super::Detected;

/// Octets of the longest registered method, `UPDATEREDIRECTREF`, and some.
const MAX_METHOD: usize = 24;

/// `None`: more bytes are needed. A method in capitals, a space, and the first octet of a target.
pub(super) fn detect(seen: &[u8]) -> Option<Detected> {
    let method = seen.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    if method > MAX_METHOD {
        return Some(Detected::Opaque);
    }
    match &seen[method..] {
        [] | [b' '] if method > 0 => None,
        [b' ', b'/' | b'*' | b'h' | b'H', ..] if method > 0 => Some(Detected::Http),
        [b' ', ..] if &seen[..method] == b"CONNECT" => Some(Detected::Http),
        _ => Some(Detected::Opaque),
    }
}
