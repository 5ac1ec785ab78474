//! The only room that opens outbound sockets: dialling, verified TLS, and the pool of connections to reuse.
use crate::{
    credential::Authorized,
    host::{Host, Target},
};
use bytes::Bytes;
use http::Response;
use http_body_util::combinators::BoxBody;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request body on its way up.
pub type Body = BoxBody<Bytes, BoxError>;

/// Where a verified connection goes: TLS name and port as checked, and the address the child itself had chosen (None: resolve the name here).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    pub target: Target,
    pub addr: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    H2,
}

/// Why the upstream could not be used; kinds as `x-authsome-error` prints them.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Cloud metadata, link-local, or one of the host's own addresses.
    #[error("{0} is not reachable from inside a run")]
    Forbidden(SocketAddr),
    #[error("connect to {addr}: {source}")]
    Connect { addr: SocketAddr, source: std::io::Error },
    #[error("placeholder")]
    Placeholder,
}

impl UpstreamError {
    /// Stable, for `x-authsome-error` and audit: `upstream-forbidden`, `upstream-connect`, `upstream-certificate`, `upstream-tls`, `upstream-protocol`, `upstream-timeout`.
    pub fn kind(&self) -> &'static str {
        todo!()
    }
    /// What the user can do about it: `--upstream-ca FILE if …`.
    pub fn hint(&self) -> String {
        todo!()
    }
}

pub struct Options {
    /// PEM files whose certificates are trusted besides the user's own (SSL_CERT_FILE, SSL_CERT_DIR, the system's).
    pub extra_roots: Vec<PathBuf>,
    pub connect_timeout: Duration,
    /// Addresses of the host itself and others the child may never reach through us (`--expose`/`--allow` lift them before).
    pub allow_host_addresses: bool,
}

/// Dialler, TLS client and pool of one run; roots are read on first use.
pub struct Upstream {}

impl Upstream {
    pub fn new(_options: Options) -> Arc<Self> {
        todo!()
    }
    /// A plain TCP connection for an opaque relay, TCP_NODELAY set, forbidden addresses refused.
    pub async fn dial(&self, _addr: SocketAddr) -> Result<tokio::net::TcpStream, UpstreamError> {
        todo!()
    }
    /// Makes sure a verified connection exists and says what it speaks (ALPN), so that the child's side can offer the same. `h2`: the child offers h2.
    pub async fn protocol(&self, _destination: &Destination, _h2: bool) -> Result<Protocol, UpstreamError> {
        todo!()
    }
    /// Sends one request over a pooled or new verified connection and gives back the response head with its streaming body.
    /// A request that may have reached the server is never sent twice. Upgrades: the response carries hyper's `OnUpgrade`.
    pub async fn send(
        &self,
        _destination: &Destination,
        _request: Authorized<Body>,
    ) -> Result<Response<hyper::body::Incoming>, UpstreamError> {
        todo!()
    }
}

/// For error texts.
pub fn host_of(destination: &Destination) -> &Host {
    &destination.target.host
}
