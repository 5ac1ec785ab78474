//! The verified TLS client.

use super::{
    Protocol, UpstreamError,
    outbound::Outbound,
    read_ahead::ReadAhead,
    roots::{self, RootsError},
};
use crate::host::{Host, Target};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::OnceCell, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What to offer by ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// `http/1.1` alone.
    Http1,
    /// `h2`, then `http/1.1`.
    Any,
}

/// Why a server's certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadCertificate {
    Expired,
    NotYetValid,
    /// The names that the certificate is for instead.
    WrongHost(Vec<String>),
    UnknownIssuer,
    Revoked,
    Other(String),
}

impl fmt::Display for BadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("expired"),
            Self::NotYetValid => f.write_str("not yet valid"),
            Self::WrongHost(names) if names.is_empty() => f.write_str("wrong host"),
            Self::WrongHost(names) => write!(f, "wrong host (it is for {})", names.join(", ")),
            Self::UnknownIssuer => f.write_str("unknown issuer"),
            Self::Revoked => f.write_str("revoked"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// TLS 1.2 and 1.3 with the user's roots, which are read on first use.
pub struct Client {
    extra_roots: Vec<PathBuf>,
    timeout: Duration,
    configs: OnceCell<Configs>,
}

/// One for each [`Offer`].
pub struct Configs {
    http1: Arc<ClientConfig>,
    any: Arc<ClientConfig>,
}

impl Client {
    pub fn new(extra_roots: Vec<PathBuf>, timeout: Duration) -> Self {
        Self { extra_roots, timeout, configs: OnceCell::new() }
    }

    /// Reads the roots if that has not been done; meanwhile something else may be.
    pub async fn ready(&self) -> Result<&Configs, UpstreamError> {
        Ok(self.configs.get_or_try_init(|| load(self.extra_roots.clone())).await?)
    }

    /// A TLS connection on `tcp` whose certificate verified for the target's host, and what it speaks.
    pub async fn connect(
        &self,
        tcp: Outbound,
        target: &Target,
        offer: Offer,
    ) -> Result<(TlsStream<ReadAhead<Outbound>>, Protocol), UpstreamError> {
        let configs = self.ready().await?;
        let config = match offer {
            Offer::Http1 => &configs.http1,
            Offer::Any => &configs.any,
        };
        let handshake = TlsConnector::from(config.clone()).connect(server_name(target)?, ReadAhead::new(tcp));
        let stream = match timeout(self.timeout, handshake).await {
            Ok(connected) => connected.map_err(|source| failure(target, source))?,
            Err(_) => {
                return Err(UpstreamError::Timeout { peer: target.to_string(), stage: "TLS handshake", after: self.timeout });
            }
        };
        let protocol = if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Protocol::H2 } else { Protocol::Http1 };
        Ok((stream, protocol))
    }
}

/// Off the runtime's threads: reading and parsing some hundred and forty certificates takes milliseconds.
async fn load(extra: Vec<PathBuf>) -> Result<Configs, RootsError> {
    let loaded = tokio::task::spawn_blocking(move || configs(roots::load(&extra)?)).await;
    loaded.unwrap_or_else(|panicked| Err(RootsError::NoneTrusted(panicked.to_string())))
}

fn configs(roots: RootCertStore) -> Result<Configs, RootsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]).map_err(RootsError::Client)?;
    let mut http1 = versions.with_root_certificates(roots).with_no_client_auth();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    // The clone shares the session cache: what one learned to resume, the other resumes.
    let mut any = http1.clone();
    any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Configs { http1: Arc::new(http1), any: Arc::new(any) })
}

/// rustls gives a name as its enum prints it: `DnsName("api.acme.test")`.
fn bare(name: &str) -> String {
    name.split('"').nth(1).unwrap_or(name).to_owned()
}

fn server_name(target: &Target) -> Result<ServerName<'static>, UpstreamError> {
    match &target.host {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned())
            .map_err(|error| UpstreamError::Tls { target: target.clone(), source: io::Error::other(error) }),
    }
}

/// Tells a certificate that did not verify from everything else that ends a handshake.
fn failure(target: &Target, source: io::Error) -> UpstreamError {
    let target = target.clone();
    match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(error)) => UpstreamError::Certificate { target, reason: error.into() },
        Some(rustls::Error::NoCertificatesPresented) => {
            UpstreamError::Certificate { target, reason: BadCertificate::Other("none was presented".to_owned()) }
        }
        _ => UpstreamError::Tls { target, source },
    }
}

impl From<&CertificateError> for BadCertificate {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName => Self::WrongHost(Vec::new()),
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::WrongHost(presented.iter().map(|name| bare(name)).collect())
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Revoked => Self::Revoked,
            other => Self::Other(other.to_string()),
        }
    }
}
