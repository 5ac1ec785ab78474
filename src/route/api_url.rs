//! One `api_url` of a provider's definition.

use std::{fmt, str::FromStr};

use crate::host::Target;

use super::{
    host_pattern::{HostPattern, HostPatternError},
    path::PathPrefix,
};

/// The port of `https` (RFC 9110 §4.2.2), where an `api_url` names none.
const HTTPS: u16 = 443;

/// Which hosts, on which port, below which path.
#[derive(Debug, Clone)]
pub struct ApiUrl {
    pub(super) pattern: HostPattern,
    pub(super) port: u16,
    pub(super) prefix: PathPrefix,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiUrlError {
    #[error(transparent)]
    Host(#[from] HostPatternError),
    #[error("`{0}` is not an https URL")]
    Scheme(String),
    #[error("`{0}` is no port")]
    Port(String),
    #[error("`{0}` is no path prefix (no dot segments, no empty segments, no query)")]
    Path(String),
    #[error("`{0}` holds a user name")]
    UserInfo(String),
    #[error("`{0}` needs the connection's base URL: log in with --base-url")]
    NoBaseUrl(String),
}

impl ApiUrl {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pattern(&self) -> &HostPattern {
        &self.pattern
    }

    /// The one host and port it is about, unless it is a pattern.
    pub fn target(&self) -> Option<Target> {
        match &self.pattern {
            HostPattern::Exact(host) => Some(Target { host: host.clone(), port: self.port }),
            HostPattern::Regex(_) => None,
        }
    }

    /// Whether a request to that target and path would be this one's.
    pub fn claims(&self, target: &Target, path: &str) -> bool {
        self.port == target.port && self.pattern.matches(&target.host) && self.prefix.matches(path)
    }

    /// Whether a server could take a request to that target and path for this one's.
    pub fn could_claim(&self, target: &Target, path: &str) -> bool {
        self.port == target.port && self.pattern.matches(&target.host) && self.prefix.could_match(path)
    }
}

impl FromStr for ApiUrl {
    type Err = ApiUrlError;

    /// `api.github.com` · `https://host[:port][/path/prefix]` · `regex:PATTERN`
    fn from_str(text: &str) -> Result<Self, ApiUrlError> {
        if text.contains("{base_url}") {
            return Err(ApiUrlError::NoBaseUrl(text.to_owned()));
        }
        if text.starts_with("regex:") {
            return Ok(Self { pattern: text.parse()?, port: HTTPS, prefix: any() });
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            Some(_) => return Err(ApiUrlError::Scheme(text.to_owned())),
            None => text,
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err(ApiUrlError::UserInfo(text.to_owned()));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') && !host.contains(':') || authority.contains("]:") => {
                let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| ApiUrlError::Port(port.to_owned()))?;
                (host, port)
            }
            _ => (authority, HTTPS),
        };
        let prefix = PathPrefix::new(path).ok_or_else(|| ApiUrlError::Path(path.to_owned()))?;
        Ok(Self { pattern: host.parse()?, port, prefix })
    }
}

fn any() -> PathPrefix {
    PathPrefix::default()
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.pattern, self.port) {
            (HostPattern::Regex(_), _) => write!(f, "{}", self.pattern),
            (HostPattern::Exact(host), port) => {
                let target = Target { host: host.clone(), port };
                if port == HTTPS { write!(f, "https://{host}{}", self.prefix) } else { write!(f, "https://{target}{}", self.prefix) }
            }
        }
    }
}
