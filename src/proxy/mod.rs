//! The data plane, one connection top to bottom: accept → detect → decide → relay, or open the TLS and serve HTTP.

use std::sync::Arc;

use ::http::request::Parts;

use crate::{
    audit,
    credential::{LazyNeedles, Resolver},
    dns::Names,
    host::Host,
    route::{Table, policy::Policy},
    upstream::Upstream,
};

mod accept;
#[cfg(target_os = "linux")]
pub mod caller;
mod connection;
pub mod detect;
pub mod explicit;
#[cfg(target_os = "linux")]
mod flow;
mod gate;
pub mod http;
mod notice;
mod opaque;
#[cfg(target_os = "linux")]
mod pace;
mod page;
pub mod process_tree;
#[cfg(target_os = "linux")]
mod redirected;
mod remedy;
#[cfg(target_os = "linux")]
mod splice;
pub mod tls;
#[cfg(any(test, not(target_os = "linux")))]
mod token;

#[cfg(target_os = "linux")]
pub use caller::Run;
pub use connection::serve_connection;
pub use gate::lookups;
pub use notice::Notices;
#[cfg(target_os = "linux")]
pub use redirected::serve;
#[cfg(not(target_os = "linux"))]
pub use token::Run;

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
    /// What the child's environment holds in place of keys.
    pub placeholders: LazyNeedles,
}

impl Context {
    /// Tells of a request that leaves unchanged with what only an injection would have replaced.
    fn tell_placeholder(&self, host: &Host, head: &Parts) {
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        if self.carries_placeholder(target.as_bytes()) || head.headers.values().any(|value| self.carries_placeholder(value.as_bytes())) {
            self.notices.placeholder(host);
        }
    }

    fn carries_placeholder(&self, bytes: &[u8]) -> bool {
        self.placeholders.as_ref().is_some_and(|placeholders| placeholders.is_in(bytes))
    }
}
