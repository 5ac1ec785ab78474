//! Where the user's rules meet the traffic: connections, requests, lookups. Without rules the routes alone decide.
//!
//! `addr` is the address the client connected to; there is none where it asked by name and the name is looked up on this side.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::Method;

use super::Context;
use crate::{
    audit::Verdict,
    defence::Defence,
    host::{Host, Target},
    route::{
        Decision, Deny, Forward,
        policy::{Asked, Denial, Protocol, Ruling},
    },
};

/// Denied names that are recorded, each once. A child that makes up names could fill memory and disk; after this many nothing new is recorded.
const MAX_RECORDED: usize = 4096;

/// DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// TLS that names its host. The name is the client's word: an opened connection proves it by the server's certificate, a relayed one only
/// by having been told this address for it.
pub fn named(context: &Context, target: &Target, addr: Option<IpAddr>) -> Decision {
    let decision = context.routes.decide(target);
    match (connection(context, target, addr, Protocol::Https), decision) {
        (Ruling::Deny(denial), _) => denied(&denial),
        (Ruling::Allow(_) | Ruling::Inspect, decision @ (Decision::Inject(_) | Decision::Inspect | Decision::Deny(_))) => decision,
        (Ruling::Inspect, Decision::Forward(Forward::Passthrough)) => Decision::Deny(uninspectable()),
        (Ruling::Inspect, Decision::Forward(_)) => Decision::Inspect,
        (Ruling::Allow(_), decision @ Decision::Forward(_)) => relayed(context, target, addr).map_or(decision, Decision::Deny),
    }
}

/// What is known by its address alone.
pub fn addressed(context: &Context, target: &Target, addr: Option<IpAddr>, protocol: Protocol) -> Decision {
    match connection(context, target, addr, protocol) {
        Ruling::Deny(denial) => denied(&denial),
        Ruling::Inspect => Decision::Inspect,
        Ruling::Allow(_) => context.routes.decide(target),
    }
}

/// Why TLS to `target` may not pass unopened, if it may not.
pub fn relayed(context: &Context, target: &Target, addr: Option<IpAddr>) -> Option<Deny> {
    let by_name = connection(context, target, addr, Protocol::Https);
    let ruling = match (by_name, addr) {
        (Ruling::Allow(_), Some(ip)) if !context.names.gave(ip, &target.host) => {
            connection(context, &address_target(context, ip, target.port), addr, Protocol::Https)
        }
        (by_name, _) => by_name,
    };
    match ruling {
        Ruling::Allow(_) => None,
        Ruling::Inspect => Some(uninspectable()),
        Ruling::Deny(denial) => Some(Deny::Policy(denial.to_string())),
    }
}

/// What becomes of a connection whose client says nothing at first.
pub enum Silent {
    /// The server may be the one to speak.
    Dial,
    /// The client has to say more before it is known whether a rule allows it.
    Wait,
    Deny(Deny),
}

pub fn silent(context: &Context, target: &Target, addr: Option<IpAddr>) -> Silent {
    let denial = |protocol| denial(context, target, addr, protocol);
    match (denial(Protocol::Tcp), denial(Protocol::Https), denial(Protocol::Http)) {
        (None, _, _) => Silent::Dial,
        (Some(denial), Some(_), Some(_)) => Silent::Deny(Deny::Policy(denial.to_string())),
        (Some(_), _, _) => Silent::Wait,
    }
}

/// Why a tunnel to `target` is denied whatever it is going to carry, if it is.
pub fn tunnel(context: &Context, target: &Target) -> Option<String> {
    // It is TLS that tunnels are for, so the reason is the one for that.
    let denials: Option<Vec<_>> =
        [Protocol::Https, Protocol::Http, Protocol::Tcp].into_iter().map(|protocol| denial(context, target, None, protocol)).collect();
    denials?.first().map(ToString::to_string)
}

/// Why a request inside an opened connection to `target` is denied, if it is.
pub fn request(context: &Context, target: &Target, addr: Option<IpAddr>, method: &Method, path: &str) -> Option<Denial> {
    if context.policy.is_empty() || !Defence::Policy.active() {
        return None;
    }
    let claims = context.routes.providers(target);
    match context.policy.request(Asked { target, addr, protocol: Protocol::Https, claims: &claims }, method, path) {
        Ruling::Deny(denial) => Some(denial),
        Ruling::Allow(_) | Ruling::Inspect => None,
    }
}

/// Which names may be looked up; the others are recorded once.
pub fn lookups(context: Arc<Context>) -> impl Fn(&Host) -> bool + Send + Sync + 'static {
    let recorded = Mutex::new(HashSet::new());
    move |host| {
        let permitted =
            context.policy.is_empty() || !Defence::LookupRule.active() || context.policy.resolves(host, &context.routes.providers_of(host));
        let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if !permitted && recorded.len() < MAX_RECORDED && recorded.insert(host.clone()) {
            let target = Target { host: host.clone(), port: DNS_PORT };
            let reason = format!("the rules let nothing through to {host}, so it is not looked up");
            context.audit.begin("dns", target, None).verdict(Verdict::Denied, reason);
        }
        permitted
    }
}

/// The name the child was last told for an address, or the address itself.
pub fn address_target(context: &Context, addr: IpAddr, port: u16) -> Target {
    Target { host: context.names.name(addr).unwrap_or_else(|| addr.into()), port }
}

/// A rule on method or path cannot be checked where there is no HTTPS to a named host, so nothing passes.
pub fn uninspectable() -> Deny {
    Deny::Policy("a rule on this host's methods or paths allows only HTTPS to it".to_owned())
}

fn connection(context: &Context, target: &Target, addr: Option<IpAddr>, protocol: Protocol) -> Ruling {
    if context.policy.is_empty() || !Defence::Policy.active() {
        return Ruling::Allow(None);
    }
    let claims = context.routes.providers(target);
    context.policy.connection(Asked { target, addr, protocol, claims: &claims })
}

fn denial(context: &Context, target: &Target, addr: Option<IpAddr>, protocol: Protocol) -> Option<Denial> {
    match connection(context, target, addr, protocol) {
        Ruling::Deny(denial) => Some(denial),
        Ruling::Allow(_) | Ruling::Inspect => None,
    }
}

fn denied(denial: &Denial) -> Decision {
    Decision::Deny(Deny::Policy(denial.to_string()))
}
