//! What the child may reach: allow and deny rules on host, port, protocol, method and path. Pure.
//!
//! No rule: everything passes. Any allow rule: everything it does not name is denied, DNS lookups included. A deny rule beats every allow rule.

use std::{fmt, net::IpAddr, str::FromStr};

use globset::{GlobBuilder, GlobMatcher};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::{
    host::{Host, Target},
    provider::ProviderName,
};

use super::is_canonical;

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

/// Whom a rule is asked about: a target, the address it was reached by, and the connected providers that claim it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub target: &'a Target,
    /// Rules on addresses and networks are about this one too.
    pub addr: Option<IpAddr>,
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

impl Denial {
    /// What would let it through; empty where a rule forbids it.
    pub fn hint(&self) -> String {
        match self {
            Self::By(_) => String::new(),
            Self::Unnamed { add } => format!("--allow '{add}'"),
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

    /// The first allow rule for traffic of this protocol and no other.
    pub fn names(&self, protocol: Protocol) -> Option<&Rule> {
        self.allow.iter().find(|rule| rule.protocol == Some(protocol))
    }

    /// Addresses that an allow rule names one by one, each with its port if it has one: what a wider rule never means, this may.
    pub fn named_addresses(&self) -> Vec<(IpAddr, Option<u16>)> {
        let named = |rule: &Rule| match rule.subject {
            Subject::Host(Host::Ip(ip)) => Some((ip, rule.port)),
            _ => None,
        };
        self.allow.iter().filter_map(named).collect()
    }

    /// For a connection before its first request is known.
    pub fn connection(&self, asked: Asked<'_>) -> Ruling {
        let matching = |rules: &'_ [Rule]| rules.iter().filter(|rule| rule.names_connection(asked)).cloned().collect::<Vec<_>>();
        let (deny, allow) = (matching(&self.deny), matching(&self.allow));
        let can_open = matches!(asked.protocol, Protocol::Https | Protocol::Http);
        if let Some(rule) = deny.iter().find(|rule| !rule.needs_request()) {
            return Ruling::Deny(Denial::By(rule.text.clone()));
        }
        let conditional_deny = deny.iter().find(|rule| rule.needs_request());
        // What cannot be opened may hold the very request that is forbidden.
        if let (Some(rule), false) = (conditional_deny, can_open) {
            return Ruling::Deny(Denial::By(rule.text.clone()));
        }
        match allow.iter().find(|rule| !rule.needs_request()) {
            _ if conditional_deny.is_some() && (self.allow.is_empty() || !allow.is_empty()) => Ruling::Inspect,
            Some(rule) => Ruling::Allow(Some(rule.text.clone())),
            None if self.allow.is_empty() => Ruling::Allow(None),
            None if can_open && !allow.is_empty() => Ruling::Inspect,
            None => Ruling::Deny(Denial::Unnamed { add: asked.as_rule() }),
        }
    }

    /// For one request; never [`Ruling::Inspect`]. `path` without query, as sent.
    pub fn request(&self, asked: Asked<'_>, method: &http::Method, path: &str) -> Ruling {
        if let Some(rule) = self.deny.iter().find(|rule| rule.may_name_request(asked, method, path)) {
            return Ruling::Deny(Denial::By(rule.text.clone()));
        }
        match self.allow.iter().find(|rule| rule.surely_names_request(asked, method, path)) {
            Some(rule) => Ruling::Allow(Some(rule.text.clone())),
            None if self.allow.is_empty() => Ruling::Allow(None),
            None => Ruling::Deny(Denial::Unnamed { add: asked.as_request_rule(method, path) }),
        }
    }

    /// Whether a name may be looked up: some rule could let something through to it.
    pub fn resolves(&self, host: &Host, claims: &[ProviderName]) -> bool {
        let names = |rule: &Rule| rule.subject.names(host, None, claims);
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

    /// With the path only where a rule can name it.
    fn as_request_rule(&self, method: &http::Method, path: &str) -> String {
        let (whole, host) = (format!("{method} {}{}", self.as_rule(), globset::escape(path)), format!("{method} {}", self.as_rule()));
        match whole.parse::<Rule>() {
            Ok(rule) if rule.surely_names_request(*self, method, path) => whole,
            _ => host,
        }
    }
}

impl Rule {
    fn needs_request(&self) -> bool {
        !self.methods.is_empty() || self.path.is_some()
    }

    fn names_connection(&self, asked: Asked<'_>) -> bool {
        self.port.is_none_or(|port| port == asked.target.port)
            && self.protocol.is_none_or(|protocol| protocol.includes(asked.protocol))
            && self.subject.names(&asked.target.host, asked.addr, asked.claims)
    }

    fn names_method(&self, asked: Asked<'_>, method: &http::Method) -> bool {
        self.names_connection(asked) && (self.methods.is_empty() || self.methods.contains(method))
    }

    /// For allow rules: whatever the server makes of the path, the glob matches it.
    fn surely_names_request(&self, asked: Asked<'_>, method: &http::Method, path: &str) -> bool {
        let surely = |glob: &GlobMatcher| is_canonical(path) && readings(path).iter().all(|reading| glob.is_match(reading));
        self.names_method(asked, method) && self.path.as_ref().is_none_or(surely)
    }

    /// For deny rules: some server may read the path so that the glob matches it.
    fn may_name_request(&self, asked: Asked<'_>, method: &http::Method, path: &str) -> bool {
        let perhaps = |glob: &GlobMatcher| {
            let matches = |reading: &String| glob.is_match(reading) || glob.is_match(without_parameters(reading));
            !is_canonical(path) || readings(path).iter().any(matches)
        };
        self.names_method(asked, method) && self.path.as_ref().is_none_or(perhaps)
    }
}

/// A path as servers may read it: as sent, and decoded once and twice, since intermediaries and servers each take one layer.
fn readings(path: &str) -> Vec<String> {
    let mut readings = vec![path.to_owned()];
    for _ in 0..2 {
        let decoded = readings.last().map(|last| percent_decode_str(last).decode_utf8_lossy().into_owned());
        readings.extend(decoded);
    }
    readings.extend(readings.clone().iter().filter(|reading| reading.contains('\\')).map(|reading| reading.replace('\\', "/")));
    readings
}

/// `/v1;a=b/x` is `/v1/x` to servers that know path parameters (RFC 3986 §3.3).
fn without_parameters(path: &str) -> String {
    path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("/")
}

impl Subject {
    fn names(&self, host: &Host, addr: Option<IpAddr>, claims: &[ProviderName]) -> bool {
        let addr = addr.map(|addr| addr.to_canonical());
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Host(Host::Ip(wanted)), _) if addr == Some(*wanted) => true,
            (Self::Network(network, prefix), _) if addr.is_some_and(|addr| contains(*network, *prefix, addr)) => true,
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
        if let (Some(Protocol::Tcp | Protocol::Udp | Protocol::Icmp), false) = (protocol, methods.is_empty() && path.is_none()) {
            return Err(error("only http and https have methods and paths".to_owned()));
        }
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

impl Protocol {
    /// What runs over TCP is TCP.
    fn includes(self, other: Self) -> bool {
        self == other || (self == Self::Tcp && matches!(other, Self::Http | Self::Https))
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

/// One rule a line, as `--dry-run` lists them.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.allow.iter().try_for_each(|rule| writeln!(f, "allow      {rule}"))?;
        self.deny.iter().try_for_each(|rule| writeln!(f, "deny       {rule}"))
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
        match policy.connection(Asked { target: &target(host, port), addr: None, protocol, claims: &claims }) {
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
            (&["tcp://db.acme.test:5432"], &[], "db.acme.test", 5432, Https, "allow"),
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
            (&["*"], &["DELETE *"], "api.acme.test", 22, Tcp, "deny"),
            (&["*"], &["DELETE https://*"], "api.acme.test", 22, Tcp, "allow"),
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
        let asked = Asked { target: &target, addr: None, protocol: Protocol::Https, claims: &[] };
        let ruling = |method: Method, path: &str| policy.request(asked, &method, path);
        assert_eq!(ruling(Method::GET, "/v1/a/b"), Ruling::Allow(Some("GET,HEAD api.acme.test/v1/**".into())));
        assert_eq!(ruling(Method::POST, "/v1/x/runs"), Ruling::Allow(Some("POST api.acme.test/v1/*/runs".into())));
        assert_eq!(ruling(Method::GET, "/v1/admin/x"), Ruling::Deny(Denial::By("api.acme.test/v1/admin/**".into())));
        let Ruling::Deny(denial) = ruling(Method::POST, "/v1/x/y/runs") else { panic!("a star is one segment") };
        assert_eq!(denial.to_string(), "no rule allows it; add `--allow 'POST api.acme.test:443/v1/x/y/runs'`");
        let suggested: Rule = "POST api.acme.test:443/v1/x/y/runs".parse().unwrap();
        assert!(suggested.surely_names_request(asked, &Method::POST, "/v1/x/y/runs"), "the rule that is suggested works");
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_never_allowed_and_always_denied() {
        let target = target("api.acme.test", 443);
        let asked = Asked { target: &target, addr: None, protocol: Protocol::Https, claims: &[] };
        let (allow, deny) = (policy(&["api.acme.test/v1/*"], &[]), policy(&[], &["api.acme.test/v1/admin/**"]));
        for path in ["/v1/../admin", "/v1/%2e%2e", "/v1//x", "/v1/x%2fadmin", "/v1/x%252fadmin", "/v1/.."] {
            let Ruling::Deny(denial) = allow.request(asked, &Method::GET, path) else { panic!("{path} is allowed") };
            let Denial::Unnamed { add } = denial else { panic!("{denial}") };
            assert!(add.parse::<Rule>().unwrap().surely_names_request(asked, &Method::GET, path), "{path}: {add}");
        }
        for path in ["/v1/x/../admin/y", "/v1//admin/y", "/v1/%61dmin/y", "/v1/%2561dmin/y", "/v1/admin%2fy", "/v1/admin;a=b/y"] {
            assert!(matches!(deny.request(asked, &Method::GET, path), Ruling::Deny(_)), "{path} is not denied");
        }
        assert_eq!(allow.request(asked, &Method::GET, "/v1/a%20b"), Ruling::Allow(Some("api.acme.test/v1/*".into())));
        assert_eq!(deny.request(asked, &Method::GET, "/v1/administrator/y"), Ruling::Allow(None));
    }

    proptest::proptest! {
        #[test]
        fn no_encoding_hides_a_path(layers in proptest::collection::vec(0..3usize, 11)) {
            let encoded: String = "/v1/admin/x".chars().zip(&layers).map(|(c, layer)| match layer {
                0 => c.to_string(),
                1 => format!("%{:02x}", c as u32),
                _ => format!("%25{:02X}", c as u32),
            }).collect();
            let target = target("api.acme.test", 443);
            let asked = Asked { target: &target, addr: None, protocol: Protocol::Https, claims: &[] };
            let ruling = |policy: Policy| policy.request(asked, &Method::GET, &encoded);
            proptest::prop_assert!(matches!(ruling(policy(&[], &["*/v1/admin/**"])), Ruling::Deny(_)));
            proptest::prop_assert!(matches!(ruling(policy(&["*/v1/*", "*/v1/[!a]*/**"], &[])), Ruling::Deny(_)));
        }
    }

    #[test]
    fn rules_on_addresses_hold_for_names_too() {
        let target = target("other.test", 443);
        let asked = Asked { target: &target, addr: Some("203.0.113.11".parse().unwrap()), protocol: Protocol::Https, claims: &[] };
        assert!(matches!(policy(&[], &["203.0.113.0/24"]).connection(asked), Ruling::Deny(_)));
        assert!(matches!(policy(&["203.0.113.11"], &[]).connection(asked), Ruling::Allow(Some(_))));
        assert!(matches!(policy(&["203.0.113.12"], &[]).connection(asked), Ruling::Deny(_)));
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
            "GET tcp://db.acme.test",
            "udp://db.acme.test/x",
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
