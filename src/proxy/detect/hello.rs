//! A TLS ClientHello (RFC 8446 §4.1.2), parsed by rustls.

use rustls::{
    Error, InvalidMessage,
    server::{Accepted, Acceptor},
};

use super::{DetectError, Detected, MAX_HELLO};
use crate::{
    host::Host,
    proxy::tls::{ALPN_H2, ALPN_HTTP10, ALPN_HTTP11},
};

/// A whole ClientHello; the handshake can go on from here without reading it again.
pub struct Hello {
    pub server_name: Host,
    /// Protocols in the client's order (RFC 7301); empty when it sent none.
    pub alpn: Vec<Vec<u8>>,
    pub accepted: Accepted,
}

impl Hello {
    pub fn offers_h2(&self) -> bool {
        self.offers(ALPN_H2)
    }

    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|offered| offered == protocol)
    }

    /// Whether the client may speak a protocol we can open: HTTP by ALPN, or no ALPN at all.
    pub fn speaks_http(&self) -> bool {
        self.alpn.is_empty() || [ALPN_H2, ALPN_HTTP11, ALPN_HTTP10].into_iter().any(|id| self.offers(id))
    }
}

/// Whether these first bytes begin a TLS handshake record: type 22, major version 3 (RFC 8446 §5.1). `None`: one byte more will tell.
pub(super) fn starts(seen: &[u8]) -> Option<bool> {
    match seen {
        [] | [22] => None,
        [22, 3, ..] => Some(true),
        _ => Some(false),
    }
}

#[derive(Default)]
pub(super) struct Parser {
    acceptor: Acceptor,
    taken: usize,
}

impl Parser {
    pub(super) fn feed(&mut self, mut chunk: &[u8]) -> Result<Option<Detected>, DetectError> {
        let length = chunk.len();
        self.taken += length;
        if self.taken > MAX_HELLO {
            return Err(DetectError::TooLong);
        }
        match self.acceptor.read_tls(&mut chunk) {
            Ok(n) if n == length => {}
            Ok(_) | Err(_) => return Err(DetectError::TooLong),
        }
        Ok(match self.acceptor.accept() {
            Ok(None) => None,
            Ok(Some(accepted)) => Some(hello(accepted)),
            Err((Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge), _)) => return Err(DetectError::TooLong),
            Err(_) => Some(Detected::TlsNoName),
        })
    }
}

fn hello(accepted: Accepted) -> Detected {
    let hello = accepted.client_hello();
    let alpn = hello.alpn().map(|offered| offered.map(<[u8]>::to_vec).collect()).unwrap_or_default();
    match hello.server_name().map(str::parse) {
        Some(Ok(server_name @ Host::Name(_))) => Detected::Tls(Box::new(Hello { server_name, alpn, accepted })),
        Some(Ok(Host::Ip(_)) | Err(_)) | None => Detected::TlsNoName,
    }
}
