//! nftables rules as plain data; [`Ruleset`]'s `Display` is nft(8) syntax, as `nft list ruleset` prints it.

use std::{fmt, iter};

use crate::{error::Result, link::IpNet, nft};

/// Tables that are loaded together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    pub tables: Vec<Table>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub name: String,
    /// Kept by the kernel with the table.
    pub comment: Option<String>,
    pub chains: Vec<Chain>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    Ip,
    Ip6,
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub kind: Kind,
    pub hook: Hook,
    /// Order among the chains of a hook: lower is earlier.
    pub priority: i32,
    /// For packets that no rule decides.
    pub policy: Policy,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Filter,
    Nat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

/// Everything must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub verdict: Verdict,
    /// Kept by the kernel with the rule.
    pub comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Of that transport protocol.
    Protocol(Protocol),
    /// Of any other.
    NotProtocol(Protocol),
    /// To that port; after [`Match::Protocol`] TCP or UDP.
    Port(u16),
    /// To an address of this namespace (`fib daddr type local`).
    ToLocal,
    To(IpNet),
    From(IpNet),
    In(String),
    /// Through any other link.
    NotIn(String),
    Out(String),
    /// An ICMPv6 message of that type.
    Icmpv6(u8),
    /// Belongs to a connection that was let through before.
    Established,
    /// Was taken out of connection tracking by [`Verdict::NoTrack`], or never is in it.
    Untracked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    /// The sender is told: EPERM for local senders, ICMP for others.
    Reject,
    /// To this port of the namespace itself.
    Redirect(u16),
    /// From the address of the link it leaves by.
    Masquerade,
    /// To no connection's; the next rule goes on. In chains of priority [`RAW`].
    NoTrack,
}

/// The rules of a namespace whose traffic is served by listeners on its own loopback addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Name of the table.
    pub table: String,
    /// Where redirected TCP connections go.
    pub listener: u16,
    /// Redirected TCP ports; `None` for all.
    pub ports: Option<Vec<u16>>,
    /// Networks where nobody is: TCP to them is redirected whatever the port, and nothing else is let out to them.
    pub networks: Vec<IpNet>,
    /// Where what is not redirected may not go; `None`: nowhere, nothing carries it.
    pub barred: Option<Vec<IpNet>>,
    /// Where DNS goes, UDP and TCP, whatever the resolver's address.
    pub dns: u16,
}

/// Neighbour solicitation and advertisement, RFC 4861 §4.3, §4.4.
pub(crate) const NEIGHBOUR: [u8; 2] = [135, 136];
/// NF_IP_PRI_RAW, _NAT_DST, _FILTER and _NAT_SRC, linux/netfilter_ipv4.h. Connections are tracked right after RAW.
pub const RAW: i32 = -300;
pub const NAT_DST: i32 = -100;
pub const FILTER: i32 = 0;
pub const NAT_SRC: i32 = 100;

impl Ruleset {
    /// Redirection for sockets of the namespace. In this order: DNS; what is local stays local; the intercepted ports; QUIC is refused at once so
    /// that clients fall back to TCP. Most packets belong to a connection that was let through, which costs less to see than an address to look up;
    /// and TCP that is not redirected costs less where no connection is kept of it.
    pub fn redirect(redirect: &Redirect) -> Self {
        use Match::{Established, Icmpv6, NotProtocol, Port, Protocol as Of, ToLocal, Untracked};
        let tcp = |matched: Match, verdict| rule(&[Of(Protocol::Tcp), matched], verdict);
        let to_listener = Verdict::Redirect(redirect.listener);
        let intercepted = match &redirect.ports {
            None => vec![rule(&[Of(Protocol::Tcp)], to_listener)],
            Some(ports) => ports.iter().map(|port| Port(*port)).chain(redirect.nobody()).map(|matched| tcp(matched, to_listener)).collect(),
        };
        let dns = [Protocol::Udp, Protocol::Tcp].map(|protocol| rule(&[Of(protocol), Port(53)], Verdict::Redirect(redirect.dns)));
        let local = || rule(&[ToLocal], Verdict::Accept);
        let refused = match &redirect.barred {
            None => vec![rule(&[NotProtocol(Protocol::Tcp)], Verdict::Reject)],
            Some(barred) => {
                // The kernel's own, to multicast addresses; without it there is no IPv6 on the link.
                let neighbour = NEIGHBOUR.map(|kind| rule(&[Icmpv6(kind)], Verdict::Accept)).into_iter().filter(|_| !barred.is_empty());
                neighbour.chain(redirect.closed().map(|to| rule(&[to], Verdict::Reject))).collect()
            }
        };
        let quic = rule(&[Of(Protocol::Udp), Port(443)], Verdict::Reject);
        let untracked = redirect.untracked();
        let passed = (!untracked.is_empty()).then(|| tcp(Untracked, Verdict::Accept));
        let first = passed.into_iter().chain([rule(&[Established], Verdict::Accept), local(), quic]);
        let mut chains = untracked;
        chains.extend([
            chain("redirect", Kind::Nat, Hook::Output, NAT_DST, dns.into_iter().chain([local()]).chain(intercepted).collect()),
            chain("refuse", Kind::Filter, Hook::Output, FILTER, first.chain(refused).collect()),
        ]);
        Self { tables: vec![Table { family: Family::Inet, name: redirect.table.clone(), comment: None, chains }] }
    }

    /// Replaces the tables of the same names in the calling thread's network namespace, in one atomic transaction.
    pub fn load(&self) -> Result<()> {
        nft::load(self)
    }

    /// As [`load`](Self::load), where no table has one of the names yet (EEXIST otherwise), as in a new namespace. Much faster: nothing
    /// is replaced, and for what is the kernel waits until no packet can be in it any more (some 10 ms).
    pub fn create(&self) -> Result<()> {
        nft::create(self)
    }
}

impl Redirect {
    /// To the networks where nobody is.
    fn nobody(&self) -> impl Iterator<Item = Match> {
        self.networks.iter().map(|net| Match::To(*net))
    }

    /// To where nothing may go that is not redirected.
    fn closed(&self) -> impl Iterator<Item = Match> {
        self.nobody().chain(self.barred.iter().flatten().map(|net| Match::To(*net)))
    }

    /// Takes out of connection tracking the TCP that is carried past the listeners, to nowhere barred; what comes by a link can be nothing else. No chains
    /// if there is none.
    fn untracked(&self) -> Vec<Chain> {
        use Match::{In, Out, Port, Protocol as Of};
        let (Some(ports), Some(_)) = (&self.ports, &self.barred) else { return Vec::new() };
        let loopback = || "lo".to_owned();
        let tracked = [53].iter().chain(ports).map(|port| Port(*port)).chain(self.closed());
        let tracked = tracked.map(|matched| rule(&[Of(Protocol::Tcp), matched], Verdict::Accept));
        let rest = || rule(&[Of(Protocol::Tcp)], Verdict::NoTrack);
        let leaving = iter::once(rule(&[Out(loopback())], Verdict::Accept)).chain(tracked).chain([rest()]);
        vec![
            chain("leaving", Kind::Filter, Hook::Output, RAW, leaving.collect()),
            chain("arriving", Kind::Filter, Hook::Prerouting, RAW, vec![rule(&[In(loopback())], Verdict::Accept), rest()]),
        ]
    }
}

pub(crate) fn rule(matches: &[Match], verdict: Verdict) -> Rule {
    Rule { matches: matches.to_vec(), verdict, comment: None }
}

pub(crate) fn chain(name: &str, kind: Kind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), kind, hook, priority, policy: Policy::Accept, rules }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        if let Some(comment) = &self.comment {
            writeln!(f, "\tcomment \"{comment}\"")?;
        }
        for (index, chain) in self.chains.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            chain.fmt(f)?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, hook, policy, .. } = self;
        let kind = match kind {
            Kind::Filter => "filter",
            Kind::Nat => "nat",
        };
        let policy = match policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        writeln!(f, "\tchain {name} {{")?;
        writeln!(f, "\t\ttype {kind} hook {hook} priority {}; policy {policy};", self.priority_name())?;
        self.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{rule}"))?;
        writeln!(f, "\t}}")
    }
}

impl Chain {
    /// As nft names it: by the standard name where the hook has one for it.
    fn priority_name(&self) -> String {
        match (self.priority, self.hook) {
            (RAW, _) => "raw".to_owned(),
            (FILTER, _) => "filter".to_owned(),
            (NAT_DST, Hook::Prerouting) => "dstnat".to_owned(),
            (NAT_SRC, Hook::Postrouting) => "srcnat".to_owned(),
            (other, hook) => {
                let (name, base) = if hook == Hook::Prerouting && other < -50 { ("dstnat", NAT_DST) } else { ("filter", FILTER) };
                // nft counts from the nearest name, up to ten.
                if (other - base).abs() <= 10 {
                    format!("{name} {} {}", if other < base { '-' } else { '+' }, (other - base).abs())
                } else {
                    other.to_string()
                }
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut protocol = None;
        for (index, matched) in self.matches.iter().enumerate() {
            match matched {
                // nft folds the protocol into the port's match.
                Match::Protocol(of) if matches!(self.matches.get(index + 1), Some(Match::Port(_))) => protocol = Some(of),
                Match::Port(port) => write!(f, "{} dport {port} ", protocol.map_or("th", |of| of.name()))?,
                other => write!(f, "{other} ")?,
            }
        }
        match self.verdict {
            Verdict::Accept => write!(f, "accept")?,
            Verdict::Drop => write!(f, "drop")?,
            Verdict::Reject => write!(f, "reject with icmpx admin-prohibited")?,
            Verdict::Redirect(port) => write!(f, "redirect to :{port}")?,
            Verdict::Masquerade => write!(f, "masquerade")?,
            Verdict::NoTrack => write!(f, "notrack")?,
        }
        self.comment.as_ref().map_or(Ok(()), |comment| write!(f, " comment \"{comment}\""))
    }
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |net: &IpNet| if net.addr.is_ipv4() { "ip" } else { "ip6" };
        let whole =
            |net: &IpNet| if net.prefix == if net.addr.is_ipv4() { 32 } else { 128 } { net.addr.to_string() } else { net.to_string() };
        match self {
            Self::Protocol(protocol) => write!(f, "meta l4proto {}", protocol.name()),
            Self::NotProtocol(protocol) => write!(f, "meta l4proto != {}", protocol.name()),
            Self::Port(port) => write!(f, "th dport {port}"),
            Self::ToLocal => write!(f, "fib daddr type local"),
            Self::To(net) => write!(f, "{} daddr {}", family(net), whole(net)),
            Self::From(net) => write!(f, "{} saddr {}", family(net), whole(net)),
            Self::In(link) => write!(f, "iifname \"{link}\""),
            Self::NotIn(link) => write!(f, "iifname != \"{link}\""),
            Self::Out(link) => write!(f, "oifname \"{link}\""),
            Self::Icmpv6(kind) => write!(f, "icmpv6 type {}", icmpv6_name(*kind).map_or_else(|| kind.to_string(), ToOwned::to_owned)),
            Self::Established => write!(f, "ct state established,related"),
            Self::Untracked => write!(f, "ct state untracked"),
        }
    }
}

/// As nft names it (`nft describe icmpv6 type`).
fn icmpv6_name(kind: u8) -> Option<&'static str> {
    match kind {
        135 => Some("nd-neighbor-solicit"),
        136 => Some("nd-neighbor-advert"),
        _ => None,
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}
