//! Opening the child's TLS: the authority of this run, its leaves, and the handshake.

mod authority;
mod leaf;
mod terminate;

pub use authority::Authority;
pub use leaf::LeafError;
pub use terminate::{Opened, TerminateError, terminate};

/// The ALPN identifiers we can serve (RFC 7301 §6, RFC 9113 §3.1, IANA's registry).
pub const ALPN_H2: &[u8] = b"h2";
pub const ALPN_HTTP11: &[u8] = b"http/1.1";
pub const ALPN_HTTP10: &[u8] = b"http/1.0";
