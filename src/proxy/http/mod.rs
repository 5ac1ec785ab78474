//! HTTP inside an opened TLS connection: each request is checked, routed, authorized, sent on, and its response streamed back.

pub(crate) mod authority;
mod downstream;
mod exchange;
mod forward;
pub(crate) mod hop;
pub(super) mod interim;
mod linger;
mod respond;
pub(crate) mod scrub;
mod serve;
pub(super) mod upgrade;

pub use serve::{Ended, Rules, serve};
// What plain HTTP through the explicit proxy needs as well.
pub(super) use exchange::Exchange;
pub(super) use forward::{check_coding, returned, with_length};
pub(super) use respond::Refusal;
pub(super) use serve::http1;
