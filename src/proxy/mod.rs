//! The data plane, one connection top to bottom: accept → detect → decide → relay, or open the TLS and serve HTTP.
use crate::{audit, credential::Resolver, dns::Names, route::Table, upstream::Upstream};
use std::sync::Arc;

/// Everything a connection may use.
pub struct Context {
    pub routes: Table,
    pub resolver: Box<dyn Resolver>,
    pub upstream: Arc<Upstream>,
    pub audit: audit::Log,
    pub names: Arc<Names>,
    /// -q 0, default 1, -v 2, -vv 3: how much is said on stderr.
    pub verbosity: u8,
    pub authority: tls::Authority,
}

pub mod tls {
    //! Placeholder of the TLS room.
    /// The certificate authority of this run, key in memory only.
    pub struct Authority {}
    impl Authority {
        pub fn new() -> Result<Self, rcgen::Error> {
            todo!()
        }
        pub fn certificate_pem(&self) -> &str {
            todo!()
        }
    }
}

/// Serves redirected connections until the runtime ends. `listeners` are bound inside the namespace.
pub async fn serve(_listeners: Vec<std::net::TcpListener>, _context: Arc<Context>) -> std::io::Result<()> {
    todo!()
}
