//! The namespace's resolver: forwards to the user's own, strips ECH and HTTP/3 hints, remembers name ↔ address.
use crate::host::Host;
use std::{net::IpAddr, sync::Arc};

/// Sockets bound inside the namespace (127.0.0.1 and ::1), served outside it.
pub struct Sockets {
    pub udp: Vec<std::net::UdpSocket>,
    pub tcp: Vec<std::net::TcpListener>,
}

/// The resolvers of the user's resolv.conf.
#[derive(Debug, Clone)]
pub struct Upstreams {}

impl Upstreams {
    /// Reads /etc/resolv.conf (following symlinks), in the supervisor's own mount namespace.
    pub fn system() -> std::io::Result<Self> {
        todo!()
    }
}

/// Which names the child was told an address stands for.
#[derive(Default)]
pub struct Names {}

impl Names {
    /// The name most recently answered with this address, if any.
    pub fn name(&self, _addr: IpAddr) -> Option<Host> {
        todo!()
    }
}

/// Serves until the runtime ends. `v6`: whether the host has a default IPv6 route; without one AAAA answers are emptied.
pub async fn serve(_sockets: Sockets, _upstreams: Upstreams, _names: Arc<Names>, _v6: bool) -> std::io::Result<()> {
    todo!()
}
