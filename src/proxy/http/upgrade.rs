//! A connection that stops being HTTP (RFC 9110 §7.8, RFC 8441): both sides are joined and relayed as they are.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, StatusCode, Version, header, request::Parts};
use hyper::{
    body::Incoming,
    ext::Protocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{exchange::Exchange, hop};
use crate::{audit::Blame, upstream::fields};

/// Octets of each direction's buffer.
const BUFFER: usize = 16 * 1024;

const WEBSOCKET: &str = "websocket";

/// The child's side of the upgrade that `request` asks for, if it asks for one.
pub fn asked(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    let asks = match request.version() {
        Version::HTTP_11 => hop::upgrades(request.headers()),
        Version::HTTP_2 => request.method() == Method::CONNECT,
        _ => false,
    };
    asks.then(|| hyper::upgrade::on(request))
}

/// The method that the server will see.
pub fn method(request: &Parts) -> &Method {
    let websocket = request.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == WEBSOCKET);
    if websocket { &Method::GET } else { &request.method }
}

/// Says the same that a `101` says, to a child that asked in HTTP/2 (RFC 8441 §5).
pub fn granted_in_h2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    fields::retain(response.headers_mut(), |name| *name != header::SEC_WEBSOCKET_ACCEPT);
}

/// Waits for both sides to switch, then relays until both have ended. Runs on its own, since the response must go out first.
pub fn join(child: OnUpgrade, server: OnUpgrade, exchange: Arc<Exchange>) {
    tokio::spawn(async move {
        let (child, server) = match tokio::try_join!(child, server) {
            Ok(both) => both,
            Err(error) => return exchange.record(|guard| guard.blame(Blame::Internal, format!("upgrade: {error}"))),
        };
        let mut child = Metered { io: TokioIo::new(child), exchange: &exchange, side: Blame::Downstream };
        let mut server = Metered { io: TokioIo::new(server), exchange: &exchange, side: Blame::Upstream };
        // An error has been recorded where it happened, and dropping both ends resets the other side.
        drop(tokio::io::copy_bidirectional_with_sizes(&mut child, &mut server, BUFFER, BUFFER).await);
    });
}

/// One side, counted as it is read and blamed for its errors.
struct Metered<'a> {
    io: TokioIo<Upgraded>,
    exchange: &'a Exchange,
    side: Blame,
}

impl Metered<'_> {
    fn blame<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| self.exchange.record(|guard| guard.blame(self.side, error.to_string())))
    }
}

impl AsyncRead for Metered<'_> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(context, buffer));
        let octets = (buffer.filled().len() - before) as u64;
        match self.side {
            Blame::Downstream => self.exchange.count(octets, 0),
            Blame::Upstream | Blame::Internal => self.exchange.count(0, octets),
        }
        Poll::Ready(self.blame(result))
    }
}

impl AsyncWrite for Metered<'_> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write(context, bytes));
        Poll::Ready(self.blame(result))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
