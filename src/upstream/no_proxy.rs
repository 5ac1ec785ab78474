//! NO_PROXY: what a proxy is not asked for.

use crate::host::Target;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use std::collections::BTreeMap;

/// Stands for any proxy, where only its exceptions are asked for.
const ANY: &str = "http://proxy.invalid:1";

/// Hosts with everything below them, addresses and networks, each on every port or on one. What curl and what Go understand: curl takes blanks
/// for commas, an entry with a port is Go's alone (golang.org/x/net/http/httpproxy), and curl takes `*` for all only where nothing else is said.
#[derive(Default)]
pub struct NoProxy {
    everything: bool,
    /// By port; `None`: on every port.
    matchers: BTreeMap<Option<u16>, Matcher>,
}

impl NoProxy {
    pub fn parse(list: &str) -> Self {
        let mut hosts: BTreeMap<Option<u16>, Vec<&str>> = BTreeMap::new();
        for entry in entries(list) {
            let (host, port) = split(entry);
            hosts.entry(port).or_default().push(host);
        }
        let everything = hosts.get(&None).is_some_and(|hosts| hosts.contains(&"*"));
        let matcher = |hosts: Vec<&str>| Matcher::builder().all(ANY).no(hosts.join(",")).build();
        Self { everything, matchers: hosts.into_iter().map(|(port, hosts)| (port, matcher(hosts))).collect() }
    }

    pub fn covers(&self, target: &Target) -> bool {
        let uri = Uri::builder().scheme("https").authority(target.to_string()).path_and_query("/").build();
        let excepts = |port| self.matchers.get(&port).zip(uri.as_ref().ok()).is_some_and(|(matcher, uri)| matcher.intercept(uri).is_none());
        self.everything || excepts(None) || excepts(Some(target.port))
    }
}

/// Each as it is written.
pub fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|entry| !entry.is_empty())
}

/// `host`, `.suffix`, `*.suffix`, `address` or `network`, and `:port` behind it; an IPv6 address with a port is in brackets.
fn split(entry: &str) -> (&str, Option<u16>) {
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => port.parse().map_or((entry, None), |port| (host, Some(port))),
        _ => (entry, None),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let suffix = host.strip_prefix('*').filter(|suffix| suffix.starts_with('.')).unwrap_or(host);
    (address.unwrap_or_else(|| suffix.trim_end_matches('.')), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(list: &str, target: &str) -> bool {
        let (host, port) = target.rsplit_once(':').unwrap();
        NoProxy::parse(list).covers(&Target { host: host.parse().unwrap(), port: port.parse().unwrap() })
    }

    #[test]
    fn hosts_addresses_and_networks() {
        let list =
            "corp.test, .dot.test,192.0.2.0/24,2001:db8::/32,198.51.100.7 *.star.test\tblank.test,[2001:db9::7],root.test.,Upper.Test";
        for direct in [
            "corp.test:443",
            "a.corp.test:22",
            "A.Dot.test:80",
            "dot.test:1",
            "192.0.2.9:443",
            "[2001:db8::1]:443",
            "[2001:db9::7]:443",
            "198.51.100.7:1",
            "a.star.test:1",
            "blank.test:1",
            "root.test:1",
            "upper.test:1",
        ] {
            assert!(covers(list, direct), "{direct}");
        }
        for through in ["mycorp.test:443", "corp.test.acme.test:443", "192.0.3.1:443", "[2001:db9::1]:443", "198.51.100.70:443", "test:1"] {
            assert!(!covers(list, through), "{through}");
        }
    }

    #[test]
    fn an_entry_may_be_for_one_port() {
        for (entry, target) in [
            ("corp.test:8443", "corp.test"),
            ("corp.test:8443", "a.corp.test"),
            (".corp.test:8443", "a.corp.test"),
            ("*.corp.test:8443", "a.corp.test"),
            ("198.51.100.7:8443", "198.51.100.7"),
            ("[2001:db8::1]:8443", "[2001:db8::1]"),
            ("*:8443", "corp.test"),
        ] {
            let list = format!("other.test, {entry},other.test:443");
            assert!(covers(&list, &format!("{target}:8443")), "{entry} {target}");
            assert!(!covers(&list, &format!("{target}:443")) && !covers(&list, &format!("{target}:84")), "{entry} {target}");
            assert!(!covers(&list, "acme.test:443"), "{entry}");
        }
        // No port, so no entry at all, and none for every port.
        for wrong in ["corp.test:", "corp.test:https", "corp.test:65536", "2001:db8::1:8443"] {
            assert!(!covers(wrong, "corp.test:443") && !covers(wrong, "[2001:db8::1]:8443"), "{wrong}");
        }
    }

    #[test]
    fn a_star_is_everything() {
        for list in ["*", " * ", "corp.test,*", "* corp.test"] {
            for target in ["acme.test:443", "198.51.100.7:1", "[2001:db8::1]:1"] {
                assert!(covers(list, target), "{list} {target}");
            }
        }
        assert!(!covers("", "acme.test:443") && !covers(",", "acme.test:443"));
    }
}
