//! A way out of a network namespace through the host's own network: a veth(4) pair, NAT, forwarding. All of it can be found and undone by name, by
//! whoever comes next, after its maker was killed.
//!
//! The host keeps the only record: a table named after the link, which carries the values of the changed sysctls as comments. The link goes with
//! the inner namespace; a table without its link is therefore a dead uplink's, and [`sweep`] undoes it.
//!
//! A FORWARD chain of the old x_tables (iptables-legacy) is left alone. If it drops, so does the uplink.

use std::{fmt, fs::File, iter, net::IpAddr, os::fd::BorrowedFd, path::Path, str::FromStr};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    error::{Context, Error, Result},
    link::{self, IpNet},
    nft::{self, query},
    ruleset::{Family, Hook, Kind, Match, NAT_DST, NAT_SRC, NEIGHBOUR, Rule, Ruleset, Table, Verdict, chain, rule},
};

use self::{address::Pair, forwarding::Journal, holder::Holder};

mod address;
mod foreign;
mod forwarding;
mod holder;
pub mod pasta;

/// Links and tables are called `ns-` and six hexadecimal digits.
const PREFIX: &str = "ns-";
const DIGITS: usize = 6;
/// How the comment of a rule with a piece of the journal begins; also what tells our tables from others of such a name.
const JOURNAL: &str = "before:";
/// How the comment of the rule begins that says whose an uplink is.
const HOLDER: &str = "holder:";
/// Octets of a comment in nft(8), NFTNL_UDATA_COMMENT_MAXLEN of libnftnl.
const COMMENT_MAX: usize = 128;

/// The outer end. Dropping it is [`Uplink::remove`] without the answer.
#[derive(Debug)]
pub struct Uplink(Inner);

/// The inner end. As text, `ns-5ca1ab 172.16.0.2/30 172.16.0.1`, and the same of IPv6 if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    link: String,
    v4: Side,
    v6: Option<Side>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Side {
    addr: IpNet,
    gateway: IpAddr,
}

impl Uplink {
    /// From the calling thread's namespace into another, which may reach neither an address of this host nor the `denied` networks. IPv6 goes
    /// through where this host has an address of it. Needs CAP_NET_ADMIN over both.
    pub fn create(into: BorrowedFd<'_>, denied: &[IpNet]) -> Result<Self> {
        let _lock = lock()?;
        let (v4, v6) = Pair::free()?;
        let side = |pair: Pair| Side { addr: pair.inner, gateway: pair.outer.addr };
        let [a, b, c] = address::random()?;
        let uplink = Inner { link: format!("{PREFIX}{a:02x}{b:02x}{c:02x}"), v4: side(v4), v6: v6.map(side) };
        link::add_veth(&uplink.link, &uplink.link, into)?;
        // From here on there is something to undo.
        let made = uplink.connect(&[Some(v4), v6], denied);
        if made.is_err() {
            let _ = undo(&uplink.link);
        }
        made.map(|()| Self(uplink))
    }

    /// For the inner namespace.
    pub const fn inner(&self) -> &Inner {
        &self.0
    }

    /// Removes the link and everything that was changed for it, in the namespace it was made in. CAP_NET_ADMIN is enough.
    pub fn remove(self) -> Result<()> {
        let uplink = std::mem::ManuallyDrop::new(self);
        let _lock = lock()?;
        undo(&uplink.0.link)
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        let _ = lock().and_then(|_lock| undo(&self.0.link));
    }
}

/// Undoes what dead uplinks left in the calling thread's namespace. Nothing is done, and nothing is wrong, where the caller may not.
pub fn sweep() -> Result<()> {
    let tables = match query::tables() {
        Ok(tables) => tables,
        // Without CAP_NET_ADMIN, or on a kernel without nf_tables.
        Err(refusal) if matches!(refusal.errno, Errno::EPERM | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT) => return Ok(()),
        Err(refusal) => return Err(refusal.into_error("list tables")),
    };
    if !tables.iter().any(|table| table.family == Family::Inet && is_ours(&table.name)) {
        return Ok(());
    }
    let _lock = lock()?;
    let links = link::names()?;
    all(records()?.into_iter().filter(|record| !record.is_live(&links)).map(|record| undo(&record.link)))
}

impl Inner {
    /// Addresses, link and default routes, in the calling thread's namespace, which must be the one the uplink was made for.
    pub fn configure(&self) -> Result<()> {
        forwarding::trust_own_addresses(&self.link)?;
        link::up(&self.link)?;
        for side in [Some(self.v4), self.v6].into_iter().flatten() {
            link::add_address(&self.link, side.addr)?;
            link::add_default_route(&self.link, Some(side.gateway))?;
        }
        Ok(())
    }

    fn connect(&self, pairs: &[Option<Pair>], denied: &[IpNet]) -> Result<()> {
        // Also those of the dead: what they found is what was.
        let mut journal = Journal::default();
        records()?.into_iter().for_each(|older| journal.merge(older.journal));
        journal.merge(Journal::of_switching_on(self.v6.is_some())?);
        self.table(denied, &journal).load()?;
        journal.apply()?;
        foreign::admit(&self.link)?;
        for pair in pairs.iter().flatten() {
            link::add_address(&self.link, pair.outer)?;
        }
        link::up(&self.link)
    }

    fn table(&self, denied: &[IpNet], journal: &Journal) -> Ruleset {
        use Match::{Established, From, Icmpv6, NotIn, Out, To, ToLocal};
        // First in each chain that it may be in: most packets, others' as well, belong to a connection that was let through.
        let established = || rule(&[Established], Verdict::Accept);
        let others = || rule(&[NotIn(self.link.clone())], Verdict::Accept);
        let neighbour = || NEIGHBOUR.map(|kind| rule(&[Icmpv6(kind)], Verdict::Accept));
        let noted = |comment| Rule { comment: Some(comment), ..rule(&[], Verdict::Drop) };
        let notes = Holder::this().map(|holder| format!("{HOLDER} {holder}"));
        let masqueraded =
            [Some(self.v4), self.v6].into_iter().flatten().map(|side| rule(&[From(side.addr.addr.into())], Verdict::Masquerade));
        let chain = |kind, hook: Hook, priority, rules| chain(&hook.to_string(), kind, hook, priority, rules);
        let pieces = journal.pieces(COMMENT_MAX - JOURNAL.len() - 1).into_iter().map(|piece| format!("{JOURNAL} {piece}"));
        let chains = vec![
            // Before anyone's DNAT can turn an address of the host (a published port) into one that is forwarded to.
            chain(
                Kind::Filter,
                Hook::Prerouting,
                NAT_DST - 10,
                [established(), others()].into_iter().chain(neighbour()).chain([rule(&[ToLocal], Verdict::Reject)]).collect(),
            ),
            chain(
                Kind::Filter,
                Hook::Input,
                -10,
                iter::once(others()).chain(neighbour()).chain(notes.into_iter().chain(pieces).map(noted)).collect(),
            ),
            chain(
                Kind::Filter,
                Hook::Forward,
                -10,
                [established(), rule(&[Out(self.link.clone())], Verdict::Drop), others()]
                    .into_iter()
                    .chain(denied.iter().map(|net| rule(&[To(*net)], Verdict::Reject)))
                    .collect(),
            ),
            chain(Kind::Nat, Hook::Postrouting, NAT_SRC, masqueraded.collect()),
        ];
        Ruleset { tables: vec![Table { family: Family::Inet, name: self.link.clone(), comment: None, chains }] }
    }
}

/// In this order: no moment in which the link is there without the rules that guard the host, and none without the record of what is left to undo.
fn undo(link: &str) -> Result<()> {
    link::remove(link).or_else(unless(Errno::ENODEV))?;
    let dismissed = foreign::dismiss(link);
    let links = link::names()?;
    let (mut own, mut kept) = (Journal::default(), Journal::default());
    for other in records()? {
        match () {
            () if other.link == link => own = other.journal,
            () if other.is_live(&links) => kept.merge(other.journal),
            () => {}
        }
    }
    all([dismissed, own.restore(&kept)])?;
    nft::transact(vec![nft::delete_table(Family::Inet, link)]).or_else(unless(Errno::ENOENT))
}

/// What an uplink's table says of it.
struct Record {
    link: String,
    journal: Journal,
    holder: Option<Holder>,
}

impl Record {
    /// The kernel takes a moment to remove the link of a namespace that has gone, so the process that held it counts too.
    fn is_live(&self, links: &[String]) -> bool {
        links.contains(&self.link) && self.holder.as_ref().is_none_or(Holder::is_alive)
    }
}

/// Every uplink's record.
fn records() -> Result<Vec<Record>> {
    let rules = query::rules().map_err(|refusal| refusal.into_error("list rules"))?;
    let mut records: Vec<Record> = Vec::new();
    for rule in rules.into_iter().filter(|rule| rule.family == Family::Inet && is_ours(&rule.table)) {
        let Some(comment) = rule.comment.as_deref() else { continue };
        let (piece, holder) = (comment.strip_prefix(JOURNAL), comment.strip_prefix(HOLDER));
        if piece.is_none() && holder.is_none() {
            continue;
        }
        let at = records.iter().position(|record| record.link == rule.table).unwrap_or(records.len());
        if at == records.len() {
            records.push(Record { link: rule.table, journal: Journal::default(), holder: None });
        }
        let Some(record) = records.get_mut(at) else { continue };
        piece.into_iter().for_each(|piece| record.journal.parse(piece));
        record.holder = holder.and_then(|text| text.trim().parse().ok()).or(record.holder.take());
    }
    Ok(records)
}

/// Whether a link or table is called as ours are.
fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == DIGITS && rest.bytes().all(|octet| octet.is_ascii_hexdigit()))
}

/// One uplink of this namespace is changed at a time. The file is not read: it is the network namespace's own, nobody without CAP_NET_ADMIN can open
/// and thus hold it (mode 0600), it leaves nothing on a disk, and the lock ends with its holder.
fn lock() -> Result<Flock<File>> {
    let path = Path::new("/proc/sys/net/ipv4/tcp_fastopen_key");
    let action = || format!("lock {}", path.display());
    let file = File::open(path).context(action)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context(action)
}

/// Everything is done, and what went wrong is told together.
fn all(results: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let join = |first: Error, next: Error| Error { action: format!("{first}; {}", next.action), source: next.source };
    results.into_iter().filter_map(Result::err).reduce(join).map_or(Ok(()), Err)
}

/// `errno` says that it is done already.
fn unless(errno: Errno) -> impl Fn(Error) -> Result<()> {
    move |error| if error.source == errno { Ok(()) } else { Err(error) }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.link)?;
        [Some(self.v4), self.v6].into_iter().flatten().try_for_each(|side| write!(f, " {} {}", side.addr, side.gateway))
    }
}

impl FromStr for Inner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error { action: format!("read the inner end of an uplink from {text:?}"), source: Errno::EINVAL };
        let words: Vec<&str> = text.split_whitespace().collect();
        let side = |addr: &str, gateway: &str| Some(Side { addr: addr.parse().ok()?, gateway: gateway.parse().ok()? });
        let (link, v4, v6) = match words[..] {
            [link, addr, gateway] => (link, side(addr, gateway), None),
            [link, addr, gateway, addr6, gateway6] => (link, side(addr, gateway), Some(side(addr6, gateway6).ok_or_else(refused)?)),
            _ => return Err(refused()),
        };
        Ok(Self { link: link.to_owned(), v4: v4.ok_or_else(refused)?, v6 })
    }
}
