//! Other programs' chains that would drop what is forwarded: iptables' FORWARD, Docker's, firewalld's. An accept in our table ends only our
//! table's say (nft(8), "accept"), so theirs get a rule for each direction, marked with the link's name.

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_netfilter::nftables::{NfTablesMessage, RuleAttribute, RuleMessage};
use nix::errno::Errno;

use crate::{
    error::Result,
    netlink::Refusal,
    nft::{
        self,
        query::{self, ChainInfo, RuleInfo},
    },
    ruleset::{Match, Rule, Verdict},
};

/// NF_INET_FORWARD of linux/netfilter.h.
const FORWARD: u32 = 2;
/// Where Docker has its users' rules, ahead of its own.
const DOCKER_USER: &str = "DOCKER-USER";

/// Lets the link's traffic pass where it would not. Which packets those are is our own table's business; matching no more than the link keeps
/// the rules such that iptables-nft(8) still reads its tables.
pub(super) fn admit(link: &str) -> Result<()> {
    let refused = |refusal: Refusal| refusal.into_error("list chains and rules");
    let (chains, rules) = (query::chains().map_err(refused)?, query::rules().map_err(refused)?);
    let mut steps = Vec::new();
    for base in chains.iter().filter(|chain| chain.hook == Some(FORWARD) && !super::is_ours(&chain.table) && drops(chain, &rules)) {
        let of_users = |chain: &&ChainInfo| chain.family == base.family && chain.table == base.table && chain.name == DOCKER_USER;
        let chain = chains.iter().find(of_users).unwrap_or(base);
        for matched in [Match::In(link.to_owned()), Match::Out(link.to_owned())] {
            let rule = Rule { matches: vec![matched], verdict: Verdict::Accept, comment: Some(link.to_owned()) };
            let what = format!("table {} {}, chain {}: {rule}", chain.family, chain.table, chain.name);
            let message = NfTablesMessage::NewRule(nft::new_rule(&chain.table, &chain.name, &rule));
            // Without NLM_F_APPEND a rule becomes the first.
            steps.push((nft::message(chain.family, message), NLM_F_CREATE, what));
        }
    }
    nft::transact(steps)
}

/// Removes the marked rules, wherever they are.
pub(super) fn dismiss(link: &str) -> Result<()> {
    let rules = query::rules().map_err(|refusal| refusal.into_error("list rules"))?;
    let marked = rules.into_iter().filter(|rule| rule.comment.as_deref() == Some(link) && !super::is_ours(&rule.table));
    // One by one: whoever owns the chain may have removed a rule already.
    super::all(marked.map(|rule| nft::transact(vec![delete(rule)]).or_else(super::unless(Errno::ENOENT))))
}

/// By its policy, or by a rule of its table: rules jump.
fn drops(chain: &ChainInfo, rules: &[RuleInfo]) -> bool {
    let here = |rule: &&RuleInfo| rule.family == chain.family && rule.table == chain.table;
    chain.policy == Some(libc::NF_DROP.cast_unsigned()) || rules.iter().filter(here).any(|rule| rule.may_drop)
}

fn delete(rule: RuleInfo) -> nft::Step {
    let RuleInfo { family, table, chain, handle, .. } = rule;
    let what = format!("delete the rule with handle {handle} of table {family} {table}, chain {chain}");
    let attributes = vec![RuleAttribute::Table(table), RuleAttribute::Chain(chain), RuleAttribute::Handle(handle)];
    (nft::message(family, NfTablesMessage::DeleteRule(RuleMessage { attributes })), 0, what)
}
