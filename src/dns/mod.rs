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
    names::{Names, made_up_networks},
    resolv_conf::Upstreams,
};

use self::message::Query;
use crate::host::Host;
use hickory_proto::op::ResponseCode;
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

/// The name that the proxy answers for itself, with the certificate to trust.
pub const PAGE: &str = "mitm.it";
/// What the name is resolved to: addresses for benchmarks, which lead nowhere (RFC 2544 appendix C.2.2, RFC 5180 §8). Connections to them are
/// the proxy's own.
pub const PAGE_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const PAGE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1);

/// How long the resolvers have for a name that a proxy may know as well. Clients ask again after 5 s (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_secs(2);

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
        if let Some(answer) = query.local_answer(self.v6) {
            return Some(answer);
        }
        if !self.upstreams.permits(query.host()) {
            return Some(query.refuse(ResponseCode::NXDomain));
        }
        let answer = match self.elsewhere(&query) {
            None => self.forward(&query, transport).await,
            // An answer within the time a client waits is worth more than the right failure.
            Some(host) => match tokio::time::timeout(PATIENCE, self.forward(&query, transport)).await {
                Ok(Some((answer, true))) => Some((answer, true)),
                Ok(Some((_, false)) | None) | Err(_) => self.make_up(&query, &host).map(|answer| (answer, true)),
            },
        };
        let answer = answer.map_or_else(|| query.refuse(ResponseCode::ServFail), |(answer, _)| answer);
        match transport {
            Transport::Udp => Some(query.fit(answer)),
            Transport::Tcp => Some(answer),
        }
    }

    /// The name, if a proxy is asked to look it up too, and may know it although no resolver here does.
    fn elsewhere(&self, query: &Query) -> Option<Host> {
        query.connectable().filter(|host| query.wants_address() && self.upstreams.known_elsewhere(host))
    }

    fn make_up(&self, query: &Query, host: &Host) -> Option<Vec<u8>> {
        let (v4, v6) = self.names.make_up(host)?;
        Some(query.address(v4, self.v6.then_some(v6)))
    }

    /// The answer, and whether the name exists by it. None: no resolver gave a usable one.
    async fn forward(&self, query: &Query, transport: Transport) -> Option<(Vec<u8>, bool)> {
        let answer = forward::resolve(query, &self.upstreams, transport).await?;
        let rewritten = rewrite_answer(&answer, query.id(), self.v6).ok()?;
        if let Some(host) = query.connectable() {
            for addr in rewritten.addresses {
                self.names.learn(addr, host.clone());
            }
        }
        Some((rewritten.bytes, rewritten.code == ResponseCode::NoError))
    }
}
