//! Which provider a host and a path belong to. Pure: no I/O, no time, no secrets.
use crate::{
    host::{Host, Target},
    provider::ProviderName,
};
use std::{str::FromStr, sync::Arc};

/// One `api_url`: host pattern, port, path prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiUrl {}
impl FromStr for ApiUrl {
    type Err = PatternError;
    /// `api.github.com` · `https://host[:port][/path/prefix]` · `regex:PATTERN`
    fn from_str(_s: &str) -> Result<Self, PatternError> {
        todo!()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("placeholder")]
    Placeholder,
}

/// A connected provider's claim on a host (and perhaps a path).
#[derive(Debug, Clone)]
pub struct Route {
    pub provider: ProviderName,
    pub url: ApiUrl,
}

/// What becomes of a connection, decided by TLS name and port alone.
#[derive(Debug, Clone)]
pub enum Decision {
    /// Open the TLS; each request is then routed by its path.
    Inject(HostRoutes),
    /// Open the TLS without injecting (a policy wants method or path).
    Inspect,
    Forward(Forward),
    Deny(Deny),
}

/// Why something goes on unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// No connected provider claims the host.
    NoProvider,
    /// Two connected providers claim it equally.
    Ambiguous(ProviderName, ProviderName),
    /// The host is claimed, but not this path.
    NoPath,
    /// The user wants this host unopened.
    Passthrough,
    /// The provider's own OAuth endpoint.
    OAuthEndpoint,
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deny {
    Policy(String),
}

/// The routes that claim one host and port, most specific first.
#[derive(Debug, Clone)]
pub struct HostRoutes {}

/// What becomes of one request inside an opened TLS connection.
#[derive(Debug, Clone)]
pub enum RequestDecision {
    Inject(Arc<Route>),
    Forward(Forward),
}

impl HostRoutes {
    /// `path` as the client sent it, without query.
    pub fn decide(&self, _path: &str) -> RequestDecision {
        todo!()
    }
}

/// Every connected provider's routes: a hash of exact hosts, one automaton over the patterns.
pub struct Table {}

impl Table {
    /// `passthrough`: hosts the user wants relayed unopened.
    pub fn new(_routes: Vec<Route>, _passthrough: Vec<Host>) -> Self {
        todo!()
    }
    pub fn decide(&self, _target: &Target) -> Decision {
        todo!()
    }
    /// Ports other than 443 that some route names; the namespace intercepts them too.
    pub fn ports(&self) -> Vec<u16> {
        todo!()
    }
}
