//! What the child may reach: allow and deny rules on host, port, protocol, method and path. Pure.
//!
//! No rule: everything passes. Any allow rule: everything it does not name is denied, DNS lookups included. A deny rule beats every allow rule.

use std::{fmt, net::IpAddr, str::FromStr};

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;

use crate::{
    host::{Host, Target},
    provider::ProviderName,
};

/// A wrong rule, with what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule `{rule}`: {problem}; a rule is `[METHOD[,METHOD] ][PROTOCOL://]HOST[:PORT][/PATH]` or `provider:NAME`")]
pub struct RuleError {
    rule: String,
    problem: String,
}

/// A policy file that is not one.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
}

/// What a connection carries, as far as a rule can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Https,
    Http,
    Tcp,
    Udp,
    Icmp,
}

/// `GET,HEAD https://*.acme.test:8443/v1/**`
#[derive(Debug, Clone)]
pub struct Rule {
    text: String,
    subject: Subject,
    port: Option<u16>,
    protocol: Option<Protocol>,
    /// Empty: any.
    methods: Vec<http::Method>,
    path: Option<GlobMatcher>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Any,
    Host(Host),
    /// `*.acme.test`, without the star; the bare suffix itself is not meant.
    Suffix(String),
    Network(IpAddr, u8),
    Provider(ProviderName),
}

/// Whom a rule is asked about: a target, and the connected providers that claim it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub target: &'a Target,
    pub protocol: Protocol,
    pub claims: &'a [ProviderName],
}

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Allowed, and the rule that says so; `None` where no rule is needed.
    Allow(Option<String>),
    /// Method and path decide, so the connection must be opened.
    Inspect,
    Deny(Denial),
}

/// Why something is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    By(String),
    /// No allow rule names it; this one would.
    Unnamed {
        add: String,
    },
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(rule) => write!(f, "denied by the rule `{rule}`"),
            Self::Unnamed { add } => write!(f, "no rule allows it; add `--allow '{add}'`"),
        }
    }
}

/// Every rule of a run.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

/// A policy file: `allow = ["…"]`, `deny = ["…"]`, each a rule in the syntax of the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
}

impl Policy {
    pub fn new(allow: Vec<Rule>, deny: Vec<Rule>) -> Self {
        Self { allow, deny }
    }

    /// Reads a TOML document.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File = toml::from_str(text)?;
        let rules = |texts: Vec<String>| texts.iter().map(|text| text.parse()).collect::<Result<Vec<Rule>, _>>();
        Ok(Self { allow: rules(file.allow)?, deny: rules(file.deny)? })
    }

    pub fn extend(&mut self, other: Self) {
        self.allow.extend(other.allow);
        self.deny.extend(other.deny);
    }

    /// Without rules everything passes, and nothing is opened for their sake.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether any rule names traffic that is neither TCP nor DNS.
    pub fn names(&self, protocol: Protocol) -> bool {
        self.allow.iter().any(|rule| rule.protocol == Some(protocol))
    }

    /// For a connection before its first request is known.
    pub fn connection(&self, asked: Asked<'_>) -> Ruling {
        let matching = |rules: &'_ [Rule]| rules.iter().filter(|rule| rule.names_connection(asked)).cloned().collect::<Vec<_>>();
        let (deny, allow) = (matching(&self.deny), matching(&self.allow));
        let can_open = matches!(asked.protocol, Protocol::Https | Protocol::Http);
        if let Some(rule) = deny.iter().find(|rule| !rule.needs_request()) {
            return Ruling::Deny(Denial::By(rule.text.clone()));
        }
        let conditional_deny = can_open && deny.iter().any(Rule::needs_request);
        match allow.iter().find(|rule| !rule.needs_request()) {
            _ if conditional_deny && (self.allow.is_empty() || !allow.is_empty()) => Ruling::Inspect,
            Some(rule) => Ruling::Allow(Some(rule.text.clone())),
            None if self.allow.is_empty() => Ruling::Allow(None),
            None if can_open && !allow.is_empty() => Ruling::Inspect,
            None => Ruling::Deny(Denial::Unnamed { add: asked.as_rule() }),
        }
    }

    /// For one request; never [`Ruling::Inspect`]. `path` without query, as sent.
    pub fn request(&self, asked: Asked<'_>, method: &http::Method, path: &str) -> Ruling {
        let matching = |rules: &'_ [Rule]| rules.iter().find(|rule| rule.names_request(asked, method, path)).map(|rule| rule.text.clone());
        if let Some(rule) = matching(&self.deny) {
            return Ruling::Deny(Denial::By(rule));
        }
        match matching(&self.allow) {
            Some(rule) => Ruling::Allow(Some(rule)),
            None if self.allow.is_empty() => Ruling::Allow(None),
            None => Ruling::Deny(Denial::Unnamed { add: format!("{method} {}{path}", asked.as_rule()) }),
        }
    }

    /// Whether a name may be looked up: some rule could let something through to it.
    pub fn resolves(&self, host: &Host, claims: &[ProviderName]) -> bool {
        let names = |rule: &Rule| rule.subject.names(host, claims);
        let denied = self.deny.iter().any(|rule| names(rule) && rule.port.is_none() && rule.protocol.is_none() && !rule.needs_request());
        !denied && (self.allow.is_empty() || self.allow.iter().any(names))
    }
}

impl Asked<'_> {
    /// The narrowest rule that names this.
    fn as_rule(&self) -> String {
        let scheme = match self.protocol {
            Protocol::Https | Protocol::Http => "",
            Protocol::Tcp => "tcp://",
            Protocol::Udp => "udp://",
            Protocol::Icmp => "icmp://",
        };
        format!("{scheme}{}", self.target)
    }
}

impl Rule {
    fn needs_request(&self) -> bool {
        !self.methods.is_empty() || self.path.is_some()
    }

    fn names_connection(&self, asked: Asked<'_>) -> bool {
        self.port.is_none_or(|port| port == asked.target.port)
            && self.protocol.is_none_or(|protocol| protocol == asked.protocol)
            && self.subject.names(&asked.target.host, asked.claims)
    }

    /// A path that servers may read in more than one way matches no allow rule's glob and every deny rule's: see [`super::path`].
    fn names_request(&self, asked: Asked<'_>, method: &http::Method, path: &str) -> bool {
        self.names_connection(asked)
            && (self.methods.is_empty() || self.methods.contains(method))
            && self.path.as_ref().is_none_or(|glob| glob.is_match(path))
    }
}

impl Subject {
    fn names(&self, host: &Host, claims: &[ProviderName]) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Host(wanted), host) => wanted == host,
            (Self::Suffix(suffix), Host::Name(name)) => {
                name.as_str().strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
            }
            (Self::Network(network, prefix), Host::Ip(ip)) => contains(*network, *prefix, *ip),
            (Self::Provider(provider), _) => claims.contains(provider),
            (Self::Suffix(_), Host::Ip(_)) | (Self::Network(..), Host::Name(_)) => false,
        }
    }
}

fn contains(network: IpAddr, prefix: u8, ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => (network.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(prefix),
        (IpAddr::V6(network), IpAddr::V6(ip)) => (network.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(prefix),
        _ => false,
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let error = |problem: String| RuleError { rule: text.to_owned(), problem };
        let (methods, rest) = match text.trim().split_once(char::is_whitespace) {
            Some((methods, rest)) => (methods, rest.trim_start()),
            None => ("", text.trim()),
        };
        let methods = methods.split(',').filter(|method| !method.is_empty()).map(|method| {
            let upper = method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
            http::Method::from_bytes(method.as_bytes()).ok().filter(|_| upper).ok_or_else(|| error(format!("`{method}` is no method")))
        });
        let methods = methods.collect::<Result<Vec<_>, _>>()?;
        if let Some(name) = rest.strip_prefix("provider:") {
            let provider = name.parse().map_err(|_| error(format!("`{name}` is no provider name")))?;
            return Ok(Self {
                text: text.to_owned(),
                subject: Subject::Provider(provider),
                port: None,
                protocol: None,
                methods,
                path: None,
            });
        }
        let (protocol, rest) = match rest.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.parse().map_err(error)?), rest),
            None => (None, rest),
        };
        let (authority, path) = split_path(rest);
        let (host, port) = split_port(authority).map_err(error)?;
        let subject = host.parse().map_err(error)?;
        let path = path.map(|glob| {
            let built = GlobBuilder::new(glob).literal_separator(true).backslash_escape(false).build();
            built.map(|glob| glob.compile_matcher()).map_err(|problem| error(problem.to_string()))
        });
        Ok(Self { text: text.to_owned(), subject, port, protocol, methods, path: path.transpose()? })
    }
}

/// The path begins at the first slash, except that a slash and a number right behind an address is a prefix length.
fn split_path(text: &str) -> (&str, Option<&str>) {
    let Some(slash) = text.find('/') else { return (text, None) };
    let (authority, path) = text.split_at(slash);
    let is_prefix = path[1..].bytes().all(|byte| byte.is_ascii_digit())
        && path.len() > 1
        && authority.parse::<Host>().is_ok_and(|host| matches!(host, Host::Ip(_)));
    if is_prefix { (text, None) } else { (authority, Some(path)) }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    // A bare IPv6 address has colons of its own.
    if authority.matches(':').count() > 1 && !authority.starts_with('[') {
        return Ok((authority, None));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("`{port}` is no port"))?;
            Ok((host, Some(port)))
        }
        _ => Ok((authority, None)),
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = |text: &str| text.parse::<Host>().map_err(|error| error.to_string());
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return match host(suffix)? {
                Host::Name(name) => Ok(Self::Suffix(name.as_str().to_owned())),
                Host::Ip(_) => Err(format!("`{text}` is neither a suffix nor an address")),
            };
        }
        if let Some((network, prefix)) = text.split_once('/') {
            let Host::Ip(ip) = host(network)? else { return Err(format!("`{network}` is no address")) };
            let longest = if ip.is_ipv4() { 32 } else { 128 };
            let prefix =
                prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(|| format!("`{prefix}` is no prefix length"))?;
            return Ok(Self::Network(ip, prefix));
        }
        host(text).map(Self::Host)
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "https" => Ok(Self::Https),
            "http" => Ok(Self::Http),
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "icmp" => Ok(Self::Icmp),
            other => Err(format!("`{other}` is not one of https, http, tcp, udp, icmp")),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Policy::new(rules(allow), rules(deny))
    }

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.parse().unwrap(), port }
    }

    fn connection(policy: &Policy, host: &str, port: u16, protocol: Protocol) -> &'static str {
        let claims = if host == "api.acme.test" { vec!["acme".parse().unwrap()] } else { vec![] };
        match policy.connection(Asked { target: &target(host, port), protocol, claims: &claims }) {
            Ruling::Allow(_) => "allow",
            Ruling::Inspect => "inspect",
            Ruling::Deny(_) => "deny",
        }
    }

    #[test]
    fn connections() {
        use Protocol::{Http, Https, Icmp, Tcp, Udp};
        for (allow, deny, host, port, protocol, want) in [
            (&[][..], &[][..], "api.acme.test", 443, Https, "allow"),
            (&["api.acme.test"], &[], "api.acme.test", 443, Https, "allow"),
            (&["api.acme.test"], &[], "api.acme.test", 5432, Tcp, "allow"),
            (&["api.acme.test:443"], &[], "api.acme.test", 5432, Tcp, "deny"),
            (&["api.acme.test"], &[], "other.test", 443, Https, "deny"),
            (&["api.acme.test"], &[], "api.acme.test.other.test", 443, Https, "deny"),
            (&["api.acme.test"], &[], "evilapi.acme.test", 443, Https, "deny"),
            (&["*.acme.test"], &[], "api.acme.test", 443, Https, "allow"),
            (&["*.acme.test"], &[], "a.b.acme.test", 443, Https, "allow"),
            (&["*.acme.test"], &[], "acme.test", 443, Https, "deny"),
            (&["*.acme.test"], &[], "evilacme.test", 443, Https, "deny"),
            (&["provider:acme"], &[], "api.acme.test", 443, Https, "allow"),
            (&["provider:acme"], &[], "other.test", 443, Https, "deny"),
            (&["203.0.113.0/24"], &[], "203.0.113.9", 22, Tcp, "allow"),
            (&["203.0.113.0/24"], &[], "203.0.114.9", 22, Tcp, "deny"),
            (&["2001:db8::/32"], &[], "2001:db8::7", 22, Tcp, "allow"),
            (&["tcp://db.acme.test:5432"], &[], "db.acme.test", 5432, Tcp, "allow"),
            (&["tcp://db.acme.test:5432"], &[], "db.acme.test", 5432, Udp, "deny"),
            (&["icmp://*"], &[], "203.0.113.9", 0, Icmp, "allow"),
            (&["GET api.acme.test/v1/*"], &[], "api.acme.test", 443, Https, "inspect"),
            (&["GET api.acme.test/v1/*"], &[], "api.acme.test", 80, Http, "inspect"),
            // What is not HTTP can satisfy no rule about requests.
            (&["GET api.acme.test/v1/*"], &[], "api.acme.test", 443, Tcp, "deny"),
            (&["*"], &["other.test"], "other.test", 443, Https, "deny"),
            (&["*"], &["other.test"], "api.acme.test", 443, Https, "allow"),
            (&["*"], &["DELETE *"], "api.acme.test", 443, Https, "inspect"),
            (&[], &["DELETE api.acme.test"], "api.acme.test", 443, Https, "inspect"),
            (&[], &["DELETE api.acme.test"], "other.test", 443, Https, "allow"),
            (&["api.acme.test"], &["DELETE *"], "other.test", 443, Https, "deny"),
        ] {
            assert_eq!(
                connection(&policy(allow, deny), host, port, protocol),
                want,
                "allow {allow:?} deny {deny:?}: {host}:{port} {protocol:?}"
            );
        }
    }

    #[test]
    fn requests_and_the_rule_that_decides() {
        let policy = policy(&["GET,HEAD api.acme.test/v1/**", "POST api.acme.test/v1/*/runs"], &["api.acme.test/v1/admin/**"]);
        let target = target("api.acme.test", 443);
        let asked = Asked { target: &target, protocol: Protocol::Https, claims: &[] };
        let ruling = |method: Method, path: &str| policy.request(asked, &method, path);
        assert_eq!(ruling(Method::GET, "/v1/a/b"), Ruling::Allow(Some("GET,HEAD api.acme.test/v1/**".into())));
        assert_eq!(ruling(Method::POST, "/v1/x/runs"), Ruling::Allow(Some("POST api.acme.test/v1/*/runs".into())));
        assert_eq!(ruling(Method::GET, "/v1/admin/x"), Ruling::Deny(Denial::By("api.acme.test/v1/admin/**".into())));
        let Ruling::Deny(denial) = ruling(Method::POST, "/v1/x/y/runs") else { panic!("a star is one segment") };
        assert_eq!(denial.to_string(), "no rule allows it; add `--allow 'POST api.acme.test:443/v1/x/y/runs'`");
        let suggested: Rule = "POST api.acme.test:443/v1/x/y/runs".parse().unwrap();
        assert!(suggested.names_request(asked, &Method::POST, "/v1/x/y/runs"), "the rule that is suggested works");
    }

    #[test]
    fn names_that_no_rule_can_match_are_not_looked_up() {
        let resolves = |allow: &[&str], deny: &[&str], host: &str| policy(allow, deny).resolves(&host.parse().unwrap(), &[]);
        assert!(resolves(&[], &[], "other.test"));
        assert!(resolves(&["GET api.acme.test/x"], &[], "api.acme.test"));
        assert!(!resolves(&["api.acme.test"], &[], "secret-in-a-label.other.test"));
        assert!(!resolves(&[], &["other.test"], "other.test"));
        assert!(resolves(&[], &["other.test:22"], "other.test"), "other ports of it are allowed");
    }

    #[test]
    fn wrong_rules_say_what_is_accepted() {
        for text in [
            "",
            "get api.acme.test",
            "ftp://api.acme.test",
            "api.acme.test:0",
            "api.acme.test:x",
            "*acme.test",
            "10.0.0.0/33",
            "a b c",
            "provider:",
            "a..b",
            "api.acme.test/[x",
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("rule `{text}`: ")) && error.contains("HOST[:PORT]"), "{error}");
        }
    }

    #[test]
    fn a_file_is_two_lists() {
        let policy = Policy::parse("allow = [\"GET *.acme.test\"]\ndeny = [\"other.test\"]\n").unwrap();
        assert_eq!((policy.allow.len(), policy.deny.len()), (1, 1));
        assert!(Policy::parse("alow = []").unwrap_err().to_string().contains("alow"));
    }
}
