//! Every connected provider's routes, and the decision by host and path.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    host::{Host, Target},
    provider::ProviderName,
};

use super::{ApiUrl, Decision, Forward, RequestDecision, Route, host_pattern::HostPattern};

/// Hashes of exact hosts and of the domains that patterns are bound to: matching takes the same time whatever the number of routes.
pub struct Table {
    exact: HashMap<Target, Vec<Arc<Route>>>,
    /// By domain; a pattern stands under each of its own.
    patterns: HashMap<String, Vec<Arc<Route>>>,
    /// Where providers hand out tokens; nothing is ever injected there.
    endpoints: Arc<[ApiUrl]>,
    passthrough: HashSet<Host>,
}

/// The routes that claim one host and port.
#[derive(Debug, Clone)]
pub struct HostRoutes {
    target: Target,
    routes: Vec<Arc<Route>>,
    endpoints: Arc<[ApiUrl]>,
}

/// Two providers that claim the same with equal right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    pub claimed: String,
    pub a: ProviderName,
    pub b: ProviderName,
}

impl Table {
    /// `endpoints`: the providers' own OAuth endpoints. `passthrough`: hosts the user wants relayed unopened.
    pub fn new(routes: Vec<Route>, endpoints: Vec<ApiUrl>, passthrough: Vec<Host>) -> Self {
        let mut exact: HashMap<Target, Vec<Arc<Route>>> = HashMap::new();
        let mut patterns: HashMap<String, Vec<Arc<Route>>> = HashMap::new();
        for route in routes.into_iter().map(Arc::new) {
            match &route.url.pattern {
                HostPattern::Exact(host) => exact.entry(Target { host: host.clone(), port: route.url.port }).or_default().push(route),
                HostPattern::Regex(_) => {
                    for domain in route.url.pattern.domains() {
                        patterns.entry(domain.to_string()).or_default().push(route.clone());
                    }
                }
            }
        }
        Self { exact, patterns, endpoints: endpoints.into(), passthrough: passthrough.into_iter().collect() }
    }

    /// By the TLS name and the port the client connected to.
    pub fn decide(&self, target: &Target) -> Decision {
        if self.passthrough.contains(&target.host) {
            return Decision::Forward(Forward::Passthrough);
        }
        let routes = self.claims(target);
        if routes.is_empty() || is_loopback(&target.host) {
            return Decision::Forward(Forward::NoProvider);
        }
        let host = HostRoutes { target: target.clone(), routes, endpoints: self.endpoints.clone() };
        match host.tie_on_every_path() {
            Some(why) => Decision::Forward(why),
            None => Decision::Inject(host),
        }
    }

    /// The providers that claim a host and port, whatever the path.
    pub fn providers(&self, target: &Target) -> Vec<ProviderName> {
        let mut names: Vec<_> = self.claims(target).iter().map(|route| route.provider.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The providers that claim a host on any port.
    pub fn providers_of(&self, host: &Host) -> Vec<ProviderName> {
        let ports = self.ports().into_iter().chain([443]);
        ports.flat_map(|port| self.providers(&Target { host: host.clone(), port })).collect()
    }

    /// Ports other than 443 that some route names; the namespace intercepts them too.
    pub fn ports(&self) -> Vec<u16> {
        let all = self.exact.values().chain(self.patterns.values()).flatten();
        let mut ports: Vec<u16> = all.map(|route| route.url.port).filter(|port| *port != 443).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Pairs of providers that can be seen to tie before any request.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut claims: HashMap<String, Vec<&ProviderName>> = HashMap::new();
        for route in self.exact.values().chain(self.patterns.values()).flatten() {
            claims.entry(route.url.to_string()).or_default().push(&route.provider);
        }
        let mut conflicts = Vec::new();
        for (claimed, mut providers) in claims {
            providers.sort();
            providers.dedup();
            for (at, a) in providers.iter().enumerate() {
                let others = providers.iter().skip(at + 1);
                conflicts.extend(others.map(|b| Conflict { claimed: claimed.clone(), a: (*a).clone(), b: (*b).clone() }));
            }
        }
        conflicts.sort();
        conflicts
    }

    fn claims(&self, target: &Target) -> Vec<Arc<Route>> {
        let mut routes = self.exact.get(target).cloned().unwrap_or_default();
        let Host::Name(name) = &target.host else { return routes };
        let domains = std::iter::successors(Some(name.as_str()), |name| name.split_once('.').map(|(_, parent)| parent));
        for route in domains.filter_map(|domain| self.patterns.get(domain)).flatten() {
            let claims = route.url.port == target.port && route.url.pattern.matches(&target.host);
            if claims && !routes.iter().any(|found| Arc::ptr_eq(found, route)) {
                routes.push(route.clone());
            }
        }
        routes
    }
}

impl HostRoutes {
    /// `path` as the client sent it, without query. The longer prefix wins, then an exact host over a pattern.
    pub fn decide(&self, path: &str) -> RequestDecision {
        if self.endpoints.iter().any(|endpoint| endpoint.could_claim(&self.target, path)) {
            return RequestDecision::Forward(Forward::OAuthEndpoint);
        }
        let matching = || self.routes.iter().filter(|route| route.url.prefix.matches(path));
        let Some(best) = matching().max_by_key(|route| specificity(route)) else {
            return RequestDecision::Forward(Forward::NoPath);
        };
        let rival = matching().find(|route| specificity(route) == specificity(best) && route.provider != best.provider);
        match rival {
            Some(rival) => RequestDecision::Forward(tie(&best.provider, &rival.provider)),
            None => RequestDecision::Inject(best.clone()),
        }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Then there is nothing to open the connection for.
    fn tie_on_every_path(&self) -> Option<Forward> {
        if !self.routes.iter().all(|route| route.url.prefix.is_any()) {
            return None;
        }
        match self.decide("/") {
            RequestDecision::Forward(why @ Forward::Ambiguous(..)) => Some(why),
            _ => None,
        }
    }
}

fn specificity(route: &Route) -> (usize, bool) {
    (route.url.prefix.specificity(), matches!(route.url.pattern, HostPattern::Exact(_)))
}

/// Both names in one order, whichever was found first.
fn tie(a: &ProviderName, b: &ProviderName) -> Forward {
    let (a, b) = if a <= b { (a, b) } else { (b, a) };
    Forward::Ambiguous(a.clone(), b.clone())
}

/// Loopback addresses and the names that stand for them (RFC 6761 §6.3).
fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => ip.is_loopback(),
        Host::Name(name) => name.as_str() == "localhost" || name.as_str().ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(text: &str) -> Target {
        let (host, port) = text.rsplit_once('@').unwrap_or((text, "443"));
        Target { host: host.parse().unwrap(), port: port.parse().unwrap() }
    }

    fn table(routes: &[(&str, &str)]) -> Table {
        let routes = routes.iter().map(|(provider, url)| Route { provider: provider.parse().unwrap(), url: url.parse().unwrap() });
        let endpoints = vec!["https://login.acme.test/oauth/token".parse().unwrap(), "https://api.acme.test/oauth/token".parse().unwrap()];
        Table::new(routes.collect(), endpoints, vec!["pinned.acme.test".parse().unwrap()])
    }

    /// The provider whose credential a request would get, or why none.
    fn asked(table: &Table, host: &str, path: &str) -> String {
        let decision = match table.decide(&target(host)) {
            Decision::Inject(routes) => routes.decide(path),
            Decision::Forward(why) => RequestDecision::Forward(why),
            other => panic!("{other:?}"),
        };
        match decision {
            RequestDecision::Inject(route) => route.provider.to_string(),
            RequestDecision::Forward(Forward::Ambiguous(a, b)) => format!("{a} or {b}"),
            RequestDecision::Forward(why) => format!("{why:?}"),
        }
    }

    #[test]
    fn look_alikes_get_nothing() {
        let table = table(&[("acme", "api.acme.test"), ("wide", r"regex:(.+\.)?wide\.test"), ("ported", "https://ported.test:8443")]);
        for (host, want) in [
            ("api.acme.test", "acme"),
            ("API.Acme.Test.", "acme"),
            ("api.acme.test@8443", "NoProvider"),
            ("acme.test", "NoProvider"),
            ("xapi.acme.test", "NoProvider"),
            ("api.acme.test.evil.test", "NoProvider"),
            ("api-acme.test", "NoProvider"),
            ("apі.acme.test", "NoProvider"),
            ("wide.test", "wide"),
            ("a.b.wide.test", "wide"),
            ("evilwide.test", "NoProvider"),
            ("wide.test.evil.test", "NoProvider"),
            ("ported.test", "NoProvider"),
            ("ported.test@8443", "ported"),
            ("203.0.113.7", "NoProvider"),
            ("127.0.0.1", "NoProvider"),
            ("pinned.acme.test", "Passthrough"),
        ] {
            assert_eq!(asked(&table, host, "/"), want, "{host}");
        }
    }

    #[test]
    fn loopback_is_never_a_provider() {
        let table = table(&[("acme", "localhost"), ("other", "https://127.0.0.1"), ("third", "api.localhost")]);
        for host in ["localhost", "127.0.0.1", "api.localhost"] {
            assert_eq!(asked(&table, host, "/"), "NoProvider", "{host}");
        }
    }

    #[test]
    fn the_most_specific_claim_wins_and_a_tie_injects_nothing() {
        let table = table(&[
            ("whole", "api.acme.test"),
            ("deep", "https://api.acme.test/v1"),
            ("deeper", "https://api.acme.test/v1/admin"),
            ("pattern", r"regex:(.+\.)?acme\.test"),
            ("rival", "https://api.acme.test/v1/admin"),
            ("one", "twin.test"),
            ("two", "twin.test"),
        ]);
        for (host, path, want) in [
            ("api.acme.test", "/", "whole"),
            ("api.acme.test", "/v1/x", "deep"),
            ("api.acme.test", "/v10", "whole"),
            ("api.acme.test", "/v1/admin/x", "deeper or rival"),
            ("api.acme.test", "/v1/../v1/x", "whole"),
            ("api.acme.test", "/oauth/token", "OAuthEndpoint"),
            ("www.acme.test", "/v1/x", "pattern"),
            ("twin.test", "/", "one or two"),
        ] {
            assert_eq!(asked(&table, host, path), want, "{host}{path}");
        }
        assert!(matches!(table.decide(&target("twin.test")), Decision::Forward(Forward::Ambiguous(..))), "not even opened");
        let conflicts: Vec<_> = table.conflicts().into_iter().map(|conflict| format!("{} {}", conflict.a, conflict.b)).collect();
        assert_eq!(conflicts, ["deeper rival", "one two"]);
    }

    #[test]
    fn no_spelling_of_an_endpoint_gets_a_credential() {
        let table = table(&[("whole", "api.acme.test")]);
        for path in [
            "/oauth/token",
            "/oauth/token/",
            "/oauth//token",
            "//oauth/token",
            "/oauth/./token",
            "/x/../oauth/token",
            "/x/%2e%2e/oauth/token",
            "/x/..;a/oauth/token",
            "/oauth/%74oken",
            "/oauth/%2574oken",
            "/oauth%2ftoken",
            "/oauth%5Ctoken",
            "/oauth/token;x=1",
            "/OAuth/Token",
        ] {
            assert_eq!(asked(&table, "api.acme.test", path), "OAuthEndpoint", "{path}");
        }
        for path in ["/oauth/tokens", "/oauth", "/x/oauth/token", "/oauth/token/../x", "/v1//x"] {
            assert_eq!(asked(&table, "api.acme.test", path), "whole", "{path}");
        }
    }

    /// What the domains leave out no pattern would have matched.
    #[test]
    fn the_domains_of_a_pattern_hide_no_match() {
        let routes = [
            ("wide", r"regex:(.+\.)?wide\.test"),
            ("two", r"regex:(a|eu\.a)\.(acme|corp)\.test"),
            ("inexact", r"regex:api-[a-z]+\.acme\.test"),
            ("below", r"regex:.+\.a\.corp\.test"),
        ];
        let table = table(&routes);
        let mut found = 0;
        for (front, domain) in ["", "a.", "xa.", "eu.a.", "a.eu.", "api-b.", "eu.api-b."]
            .into_iter()
            .flat_map(|front| ["acme.test", "corp.test", "wide.test", "xwide.test"].map(|domain| (front, domain)))
        {
            let target = target(&format!("{front}{domain}"));
            let claims = |url: &str| url.parse::<ApiUrl>().unwrap().pattern.matches(&target.host);
            let mut want: Vec<ProviderName> = routes.iter().filter(|(_, url)| claims(url)).map(|(name, _)| name.parse().unwrap()).collect();
            want.sort();
            found += want.len();
            assert_eq!(table.providers(&target), want, "{front}{domain}");
        }
        assert!(found > 10, "{found}");
    }

    proptest! {
        /// Any mixture of the tricks, on every segment, still reaches the endpoint and nothing else.
        #[test]
        fn tricks_do_not_hide_an_endpoint(
            before in prop::collection::vec("(/|/\\.|/%2e|/x/\\.\\.|/x/%2E%2e|/x/y/\\.\\./\\.\\.;z){0,3}", 2),
            slashes in prop::collection::vec("/|%2f|%5c|%252F", 2),
            escaped in prop::collection::vec(0_u8..3, 10),
        ) {
            let mut escapes = escaped.iter().cycle();
            let mut spell = |segment: &str| -> String {
                segment.bytes().zip(&mut escapes).map(|(byte, how)| match how {
                    0 => char::from(byte).to_string(),
                    1 => format!("%{byte:02x}"),
                    _ => char::from(byte).to_uppercase().to_string(),
                }).collect()
            };
            let path = format!("{}{}{}{}{}{}", before[0], slashes[0], spell("oauth"), before[1], slashes[1], spell("token"));
            let table = table(&[("whole", "api.acme.test")]);
            prop_assert_eq!(asked(&table, "api.acme.test", &path), "OAuthEndpoint", "{}", path);
        }
    }

    #[test]
    fn a_path_that_no_route_claims_is_forwarded() {
        let table = table(&[("deep", "https://api.acme.test/v1")]);
        assert_eq!(asked(&table, "api.acme.test", "/v2"), "NoPath");
        assert_eq!(asked(&table, "api.acme.test", "/v1/%2e%2e/v2"), "NoPath");
    }
}
