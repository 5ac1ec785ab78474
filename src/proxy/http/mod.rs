//! HTTP inside an opened TLS connection: each request is checked, routed, authorized, sent on, and its response streamed back.

mod authority;
mod exchange;
mod forward;
mod hop;
mod respond;
mod scrub;
mod serve;
mod upgrade;

pub use forward::carries_placeholder;
pub use serve::{Rules, serve};
