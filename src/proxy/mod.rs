//! The data plane, one connection top to bottom: accept → detect → decide → relay, or open the TLS and serve HTTP.

use std::sync::Arc;

use crate::{
    audit,
    credential::Resolver,
    dns::Names,
    route::{Table, policy::Policy},
    upstream::Upstream,
};

#[cfg(target_os = "linux")]
mod accept;
#[cfg(target_os = "linux")]
pub mod caller;
mod connection;
pub mod detect;
#[cfg(target_os = "linux")]
pub mod explicit;
mod gate;
pub mod http;
mod notice;
mod opaque;
mod page;
#[cfg(target_os = "linux")]
mod remedy;
#[cfg(target_os = "linux")]
mod splice;
pub mod tls;

#[cfg(target_os = "linux")]
pub use accept::serve;
pub use connection::serve_connection;
pub use gate::lookups;
pub use notice::Notices;

/// Everything a connection may use.
pub struct Context {
    pub routes: Table,
    pub policy: Policy,
    pub resolver: Box<dyn Resolver>,
    pub upstream: Arc<Upstream>,
    pub audit: audit::Log,
    pub names: Arc<Names>,
    pub notices: Notices,
    pub authority: tls::Authority,
}
