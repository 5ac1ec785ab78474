//! What can go wrong on the way up, and what the user can do about it.

use super::{connection, roots::RootsError, tls::BadCertificate};
use crate::host::{Host, Target};
use std::{io, net::SocketAddr, time::Duration};

/// Why the upstream could not be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Cloud metadata, link-local, or one of the host's own addresses.
    #[error("{0} is not reachable from inside a run")]
    Forbidden(SocketAddr),
    /// Without the list of the host's own addresses nothing can be dialled safely.
    #[error("list this host's own addresses: {0}")]
    OwnAddresses(#[source] io::Error),
    #[error("look up {host}: {source}")]
    Lookup { host: Host, source: io::Error },
    #[error("connect to {addr}: {source}")]
    Connect { addr: SocketAddr, source: io::Error },
    /// The proxy on the way cannot be used; why.
    #[error("proxy {proxy}: {source}")]
    Proxy { proxy: Target, source: Box<UpstreamError> },
    /// The proxy wants a login, or another one. `given`: there was one; `basic`: Basic would do, which is what there is.
    #[error("proxy {proxy} wants a login{}: {reason}", if *given { " other than the one given" } else { "" })]
    ProxyLogin { proxy: Target, given: bool, basic: bool, reason: String },
    /// `unreachable`: it tried, and could not.
    #[error("proxy {proxy} {} {target}: {reason}", if *unreachable { "could not reach" } else { "does not let through to" })]
    ProxyRefused { proxy: Target, target: Target, reason: String, unreachable: bool },
    #[error("proxy {proxy} does not answer as an HTTP proxy: {}", chain(source))]
    ProxyHttp { proxy: Target, source: hyper::Error },
    #[error("proxy {proxy} does not answer as a SOCKS5 proxy: {reason}")]
    ProxySocks { proxy: Target, reason: String },
    #[error("{peer}: no {stage} within {} s", after.as_secs_f32())]
    Timeout { peer: String, stage: &'static str, after: Duration },
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error("{target}: the server's certificate does not verify: {reason}")]
    Certificate { target: Target, reason: BadCertificate },
    #[error("{target}: TLS handshake: {source}")]
    Tls { target: Target, source: io::Error },
    /// The server broke HTTP, or closed the connection before its response was whole.
    #[error("{target}: {}", chain(source))]
    Http { target: Target, source: hyper::Error },
    /// The request's own body failed, so this is not the server's doing.
    #[error("{target}: request body: {}", chain(source))]
    RequestBody { target: Target, source: hyper::Error },
}

impl UpstreamError {
    /// Stable, for `x-authsome-error` and audit: `upstream-forbidden`, `upstream-connect`, `upstream-certificate`, `upstream-tls`,
    /// `upstream-protocol`, `upstream-timeout`, `request-body`; of a proxy on the way `proxy-unusable`, `proxy-login`, `proxy-refused`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Forbidden(_) => "upstream-forbidden",
            Self::OwnAddresses(_) | Self::Lookup { .. } | Self::Connect { .. } => "upstream-connect",
            Self::Proxy { .. } | Self::ProxyHttp { .. } | Self::ProxySocks { .. } => "proxy-unusable",
            Self::ProxyLogin { .. } => "proxy-login",
            Self::ProxyRefused { .. } => "proxy-refused",
            Self::Timeout { .. } => "upstream-timeout",
            Self::Roots(_) | Self::Certificate { .. } => "upstream-certificate",
            Self::Tls { .. } => "upstream-tls",
            Self::Http { .. } => "upstream-protocol",
            Self::RequestBody { .. } => "request-body",
        }
    }

    /// Whether a verified connection ended before the response, by the server's doing and not by an answer that is no HTTP.
    pub fn broke_off(&self) -> bool {
        matches!(self, Self::Http { source, .. } if connection::is_broken_off(source))
    }

    /// Whether the server itself said that it did not process the request.
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Http { source, .. } if connection::is_unprocessed(source))
    }

    /// What the user can do about it, one sentence; empty when there is nothing to do here.
    pub fn hint(&self) -> String {
        match self {
            Self::Forbidden(addr) if addr.ip().is_loopback() => {
                format!("to let the program reach a service of this host: --expose {}", addr.port())
            }
            Self::Forbidden(addr) => format!("to let the program reach it all the same: --allow {}", addr.ip()),
            Self::Certificate { reason: BadCertificate::UnknownIssuer, .. } => {
                "if a company proxy or a private CA issued it: --upstream-ca FILE with that CA's certificate in PEM".to_owned()
            }
            Self::Certificate { reason: BadCertificate::Expired | BadCertificate::NotYetValid, .. } => {
                "check this machine's clock; if it is right, the server's owner must renew".to_owned()
            }
            Self::Certificate { target, .. } => {
                format!("something other than {} may be answering; --upstream-ca FILE helps only for a private CA", target.host)
            }
            Self::Roots(error) => error.hint(),
            Self::Lookup { host, .. } => format!("check that this machine itself can look up {host}"),
            Self::Connect { addr, source } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                format!("no port of this machine is free for one more connection to {addr}: wait until others have ended")
            }
            Self::Connect { .. } | Self::Timeout { .. } => "check that this machine itself can reach it".to_owned(),
            Self::Proxy { source, .. } if matches!(**source, Self::Certificate { .. } | Self::Roots(_)) => source.hint(),
            Self::Proxy { .. } | Self::ProxyHttp { .. } | Self::ProxySocks { .. } => {
                "check that the proxy runs and that --upstream or HTTPS_PROXY names it rightly; --upstream none goes without".to_owned()
            }
            Self::ProxyLogin { basic: false, .. } => "it takes no user and password in clear; authsome speaks Basic".to_owned(),
            Self::ProxyLogin { .. } => "name user and password in the proxy's URL: http://USER:PASSWORD@HOST:PORT".to_owned(),
            Self::ProxyRefused { unreachable: true, target, .. } => format!("check that the proxy can look up and reach {}", target.host),
            Self::ProxyRefused { target, .. } => {
                format!("ask whoever runs the proxy, or let it go direct: NO_PROXY={}", target.host)
            }
            Self::OwnAddresses(_) | Self::Tls { .. } | Self::Http { .. } | Self::RequestBody { .. } => String::new(),
        }
    }
}

impl UpstreamError {
    /// What it is about: the proxy on the way if that failed, so that it is said once and not for every host.
    pub fn about<'a>(&'a self, host: &'a Host) -> &'a Host {
        match self {
            Self::Proxy { proxy, .. } | Self::ProxyLogin { proxy, .. } | Self::ProxyHttp { proxy, .. } | Self::ProxySocks { proxy, .. } => {
                &proxy.host
            }
            _ => host,
        }
    }

    /// Whether a proxy on the way is the reason.
    pub fn is_of_proxy(&self) -> bool {
        self.kind().starts_with("proxy-")
    }
}

/// hyper's own text and its causes' in one line: its outermost text alone says as little as `connection error`.
fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
