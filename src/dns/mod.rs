//! The namespace's resolver: forwards to the user's own, strips ECH and HTTP/3 hints, remembers name ↔ address.

mod forward;
mod listen;
pub(crate) mod message;
mod names;
pub(crate) mod resolv_conf;
#[cfg(test)]
mod tests;

pub use self::{
    message::{Rewritten, Unusable, rewrite_answer},
    names::Names,
    resolv_conf::Upstreams,
};

use self::message::Query;
use hickory_proto::op::ResponseCode;
use std::sync::Arc;

/// Sockets bound inside the namespace (127.0.0.1 and ::1), served outside it.
pub struct Sockets {
    pub udp: Vec<std::net::UdpSocket>,
    pub tcp: Vec<std::net::TcpListener>,
}

/// Serves until the runtime ends. `v6`: whether the host has a default IPv6 route; without one AAAA answers are emptied.
pub async fn serve(sockets: Sockets, upstreams: Upstreams, names: Arc<Names>, v6: bool) -> std::io::Result<()> {
    listen::serve(sockets, Arc::new(Stub { upstreams, names, v6 })).await
}

/// What answers a query.
struct Stub {
    upstreams: Upstreams,
    names: Arc<Names>,
    v6: bool,
}

/// How the child's query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl Stub {
    /// The answer to one message of the child; None: there is nothing to answer.
    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = match Query::parse(bytes) {
            Ok(query) => query,
            Err(refusal) => return refusal,
        };
        if let Some(answer) = query.local_answer() {
            return Some(answer);
        }
        if !self.upstreams.permits(query.host()) {
            return Some(query.refuse(ResponseCode::NXDomain));
        }
        let answer = match self.forward(&query, transport).await {
            Some(answer) => answer,
            None => query.refuse(ResponseCode::ServFail),
        };
        match transport {
            Transport::Udp => Some(query.fit(answer)),
            Transport::Tcp => Some(answer),
        }
    }

    /// None: no resolver gave a usable answer.
    async fn forward(&self, query: &Query, transport: Transport) -> Option<Vec<u8>> {
        let answer = forward::resolve(query, &self.upstreams, transport).await?;
        let rewritten = rewrite_answer(&answer, query.id(), self.v6).ok()?;
        if let Some(host) = query.connectable() {
            for addr in rewritten.addresses {
                self.names.learn(addr, host.clone());
            }
        }
        Some(rewritten.bytes)
    }
}
