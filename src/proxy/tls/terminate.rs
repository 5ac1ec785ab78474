//! The handshake with the child, once it is known what the upstream speaks.

use std::{io, mem::MaybeUninit, time::Duration};

use rustls::AlertDescription;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::{StartHandshake, server::TlsStream};

use super::{ALPN_H2, ALPN_HTTP10, ALPN_HTTP11, LeafError, leaf::Offer};
use crate::{
    host::Name,
    proxy::{Context, detect::Hello},
    upstream::{Destination, Protocol, UpstreamError},
};

/// From our first answer to the child's Finished, besides the time the upstream took.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// The child's connection with its TLS taken off.
pub struct Opened {
    /// On the heap: whoever keeps it would have room for each place it was in.
    pub stream: Box<TlsStream<TcpStream>>,
    pub protocol: Protocol,
    /// Why the upstream could not be reached, for the answer to the first request.
    pub failure: Option<UpstreamError>,
}

#[derive(Debug, thiserror::Error)]
pub enum TerminateError {
    /// An alert about the certificate, or the end of the connection right after it was sent.
    #[error("the client rejected authsome's certificate (pinned or own trust store)")]
    Rejected,
    /// Before it had seen a certificate.
    #[error("the client gave up before the TLS handshake")]
    Gone,
    #[error("TLS handshake with the client: {0}")]
    Handshake(#[source] io::Error),
    #[error("the client did not finish its TLS handshake within {} s", HANDSHAKE_LIMIT.as_secs())]
    TooSlow,
    #[error(transparent)]
    Leaf(#[from] LeafError),
}

/// Finishes the handshake that `hello` began. Where the upstream fails, the child still gets its TLS, to be told so in HTTP.
pub async fn terminate(
    hello: Box<Hello>,
    name: &Name,
    client: TcpStream,
    destination: &Destination,
    context: &Context,
) -> Result<Opened, TerminateError> {
    let (spoken, failure) = match context.upstream.protocol(destination, hello.offers_h2()).await {
        Ok(protocol) => (Some(protocol), None),
        Err(error) => (None, Some(error)),
    };
    if has_closed(&client) {
        return Err(TerminateError::Gone);
    }
    let config = context.authority.server_config(name, offer(&hello, spoken))?;
    let handshake = StartHandshake::from_parts(hello.accepted, client).into_stream(config);
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await {
        Err(_) => return Err(TerminateError::TooSlow),
        Ok(Err(error)) => return Err(handshake_error(error)),
        Ok(Ok(stream)) => Box::new(stream),
    };
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(ALPN_H2) => Protocol::H2,
        _ => Protocol::Http1,
    };
    Ok(Opened { stream, protocol, failure })
}

/// The upstream's protocol, if the child offered it; otherwise the child's, and requests are translated.
fn offer(hello: &Hello, spoken: Option<Protocol>) -> Offer {
    let preferred = match spoken {
        Some(Protocol::H2) | None => [ALPN_H2, ALPN_HTTP11, ALPN_HTTP10],
        Some(Protocol::Http1) => [ALPN_HTTP11, ALPN_HTTP10, ALPN_H2],
    };
    preferred.into_iter().find(|id| hello.offers(id))
}

/// Whether the client is gone already; what it closes later, it closes over the certificate.
fn has_closed(client: &TcpStream) -> bool {
    match SockRef::from(client).peek(&mut [MaybeUninit::uninit()]) {
        Ok(octets) => octets == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

fn handshake_error(error: io::Error) -> TerminateError {
    use AlertDescription as Alert;
    let alert = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    };
    let closed = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    match alert {
        Some(Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown | Alert::AccessDenied) => TerminateError::Rejected,
        None if closed => TerminateError::Rejected,
        _ => TerminateError::Handshake(error),
    }
}
