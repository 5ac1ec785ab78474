//! A connection that stops being HTTP (RFC 9110 §7.8, RFC 8441): both sides are joined and relayed as they are.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::exchange::Exchange;
use crate::audit::Blame;

/// Octets of each direction's buffer.
const BUFFER: usize = 16 * 1024;

/// Waits for both sides to switch, then relays until both have ended. Runs on its own, since the response must go out first.
pub fn join(child: OnUpgrade, server: OnUpgrade, exchange: Arc<Exchange>) {
    tokio::spawn(async move {
        let (child, server) = match tokio::try_join!(child, server) {
            Ok(both) => both,
            Err(error) => return exchange.record(|guard| guard.blame(Blame::Internal, format!("upgrade: {error}"))),
        };
        let (mut child, mut server) = (TokioIo::new(child), TokioIo::new(server));
        match tokio::io::copy_bidirectional_with_sizes(&mut child, &mut server, BUFFER, BUFFER).await {
            Ok((sent, received)) => exchange.count(sent, received),
            Err(error) => exchange.record(|guard| guard.blame(Blame::Downstream, error.to_string())),
        }
    });
}
