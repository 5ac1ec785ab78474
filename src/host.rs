//! Names of the network, parsed once: [`Host`] and [`Target`].

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

/// A host as a certificate or a `Host` header can name it: lower case, no trailing dot, IDNA A-label form
/// (RFC 5890 §2.3.2.1), or an IP address. Made only by `"…".parse()`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Name(Name),
    Ip(IpAddr),
}

/// The inside of [`Host::Name`]; only this module can make one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What was wrong with a text that should have been a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("empty host name")]
    Empty,
    #[error("`{0}` is not a host name")]
    Invalid(String),
}

/// The longest name DNS can carry, in octets without the trailing dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;

impl FromStr for Host {
    type Err = HostError;

    /// Accepts `Api.Example.com.`, `bücher.example`, `203.0.113.7`, `2001:db8::1` and `[2001:db8::1]`.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let invalid = || HostError::Invalid(text.to_owned());
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(invalid)?;
            return inner.parse::<Ipv6Addr>().map(|ip| Self::Ip(canonical(ip.into()))).map_err(|_| invalid());
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(canonical(ip)));
        }
        let bare = text.strip_suffix('.').unwrap_or(text);
        let ascii = idna::domain_to_ascii_cow(bare.as_bytes(), idna::AsciiDenyList::URL).map_err(|_| invalid())?;
        let labels = || ascii.split('.');
        let shaped = ascii.len() <= MAX_NAME && labels().all(is_label);
        // A last label of digits makes the whole a (malformed) IPv4 address to every URL parser (WHATWG URL §3.5).
        let numeric = labels().next_back().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x"));
        if !shaped || numeric {
            return Err(invalid());
        }
        Ok(Self::Name(Name(ascii.into())))
    }
}

/// Letters, digits, hyphen and (as services use it) underscore; 1 to 63 octets (RFC 1035 §2.3.1, RFC 2181 §11).
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// `::ffff:a.b.c.d` is the IPv4 host it maps (RFC 4291 §2.5.5.2).
fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(canonical(ip))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_str()),
            Self::Ip(ip) => write!(f, "{ip}"),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({self})")
    }
}

/// Where a connection or request goes: a host and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    pub host: Host,
    pub port: u16,
}

/// The port of `https` where none is written (RFC 9110 §4.2.2).
pub const HTTPS: u16 = 443;

impl Target {
    /// Whether `text` is this name and port in the one spelling that needs no parsing, which nearly all clients use.
    pub fn is_plainly(&self, text: &[u8]) -> bool {
        matches!(&self.host, Host::Name(name) if self.port == HTTPS && name.as_str().as_bytes() == text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_per_host() {
        for (text, want) in [
            ("api.acme.test", "api.acme.test"),
            ("API.Acme.TEST.", "api.acme.test"),
            ("bücher.acme.test", "xn--bcher-kva.acme.test"),
            ("api。acme。test", "api.acme.test"),
            ("_srv.acme.test", "_srv.acme.test"),
            ("203.0.113.7", "203.0.113.7"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = format!("{}.test", "a".repeat(64));
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".acme.test",
            "acme.test..",
            "a b",
            "a/b",
            "user@acme.test",
            "acme.test:443",
            "a\0b",
            "a%2eb",
            "[::1",
            "::1]",
            "[203.0.113.7]",
            "203.0.113",
            "0x7f.1",
            "1",
            "203.0.113.7.",
            "acme.test\r\nX: y",
            "a,b",
            "*.acme.test",
            &long,
        ] {
            assert!(text.parse::<Host>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn targets_print_as_urls_write_them() {
        let target = |host: &str| Target { host: host.parse().unwrap(), port: 443 }.to_string();
        assert_eq!(target("acme.test"), "acme.test:443");
        assert_eq!(target("2001:db8::1"), "[2001:db8::1]:443");
    }
}
