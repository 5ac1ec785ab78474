//! Which provider a host and a path belong to. Pure: no I/O, no time, no secrets.

use std::sync::Arc;

use crate::provider::ProviderName;

mod api_url;
mod host_pattern;
mod path;
pub mod policy;
mod table;

pub use api_url::{ApiUrl, ApiUrlError};
pub use host_pattern::{HostPattern, HostPatternError};
pub use path::{PathPrefix, is_canonical};
pub use table::{Conflict, HostRoutes, Table};

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

/// What becomes of one request inside an opened TLS connection.
#[derive(Debug, Clone)]
pub enum RequestDecision {
    Inject(Arc<Route>),
    Forward(Forward),
}
