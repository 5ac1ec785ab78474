//! Loading a [`Ruleset`] by netlink (nfnetlink, linux/netfilter/nf_tables.h): one batch, one transaction.

pub(crate) mod query;

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, Hook as HookAttribute, InetHookNumber, ListAttribute,
        NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
    },
    none::ControlMessage,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    error::Result,
    link::IpNet,
    netlink::{Netlink, Refusal},
    ruleset::{Chain, Family, Hook, Kind, Match, Policy, Protocol, Rule, Ruleset, Table, Verdict},
};

/// nfgenmsg's version, linux/netfilter/nfnetlink.h.
const NFNETLINK_V0: u8 = 0;
/// Which subsystem a batch is for (`res_id` of its begin and end), linux/netfilter/nfnetlink.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// Type of a comment in user data, as nft(8) writes and shows it (libnftnl, udata.h): NFTNL_UDATA_TABLE_COMMENT, NFTNL_UDATA_RULE_COMMENT.
const COMMENT: u8 = 0;
/// Octets of a comment that NFT_USERDATA_MAXLEN (256, linux/netfilter/nf_tables.h) leaves room for, beside type, length and NUL.
const COMMENT_MAX: usize = 253;

/// enum nft_registers: the verdict, and the first general one.
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;

/// A message with its flags, and what it asks for in words.
pub(crate) type Step = (NetfilterMessage, u16, String);

/// Replaces the tables of the same names.
pub(crate) fn load(ruleset: &Ruleset) -> Result<()> {
    let steps: Vec<Step> = ruleset.tables.iter().flat_map(replace).collect();
    transact(steps)
}

/// EEXIST if there is a table of the same name.
pub(crate) fn create(ruleset: &Ruleset) -> Result<()> {
    transact(ruleset.tables.iter().flat_map(new).collect())
}

/// All steps or none. The acknowledgement of the last one says that the batch was taken.
pub(crate) fn transact(steps: Vec<Step>) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let last = steps.len();
    let mut messages = vec![(control(ControlMessage::BatchBegin), 0)];
    let mut asked = vec!["begin the transaction".to_owned()];
    for (index, (message, flags, what)) in steps.into_iter().enumerate() {
        messages.push((message, if index + 1 == last { flags | NLM_F_ACK } else { flags }));
        asked.push(what);
    }
    messages.push((control(ControlMessage::BatchEnd), 0));
    let result = Netlink::open(NETLINK_NETFILTER).and_then(|netlink| netlink.batch(messages, last));
    result.map_err(|refusal: Refusal| {
        let what = asked.get(refusal.index).map_or("commit", String::as_str).to_owned();
        refusal.into_error(format!("load rules: {what}"))
    })
}

fn control(message: ControlMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, NFNETLINK_V0, NFNL_SUBSYS_NFTABLES), message)
}

pub(crate) fn message(family: Family, message: NfTablesMessage) -> NetfilterMessage {
    let family = match family {
        Family::Inet => NetfilterProtoFamily::Inet,
        Family::Ip => NetfilterProtoFamily::IPv4,
        Family::Ip6 => NetfilterProtoFamily::IPv6,
    };
    NetfilterMessage::new(NetfilterHeader::new(family, NFNETLINK_V0, 0), message)
}

/// `add table; delete table; add table …`: what was there before is gone, whether or not something was.
fn replace(table: &Table) -> Vec<Step> {
    let add = (new_table(table), NLM_F_CREATE, format!("add table {} {}", table.family, table.name));
    [add, delete_table(table.family, &table.name)].into_iter().chain(new(table)).collect()
}

fn new(table: &Table) -> Vec<Step> {
    let what = format!("table {} {}", table.family, table.name);
    let mut steps = vec![(new_table(table), NLM_F_CREATE | NLM_F_EXCL, format!("add {what}"))];
    for chain in &table.chains {
        let place = format!("{what}, chain {}", chain.name);
        let kind = if chain.kind == Kind::Nat { "nat" } else { "filter" };
        steps.push((new_chain(table, chain), NLM_F_CREATE, format!("{place}: type {kind} hook {}", chain.hook)));
        for rule in &chain.rules {
            let message = message(table.family, NfTablesMessage::NewRule(new_rule(&table.name, &chain.name, rule)));
            steps.push((message, NLM_F_CREATE | NLM_F_APPEND, format!("{place}: {rule}")));
        }
    }
    steps
}

pub(crate) fn delete_table(family: Family, name: &str) -> Step {
    let attributes = vec![TableAttribute::Name(name.to_owned())];
    (message(family, NfTablesMessage::DeleteTable(TableMessage { attributes })), 0, format!("delete table {family} {name}"))
}

fn new_table(table: &Table) -> NetfilterMessage {
    let mut attributes = vec![TableAttribute::Name(table.name.clone())];
    attributes.extend(table.comment.as_deref().map(|comment| TableAttribute::UserData(user_data(comment))));
    message(table.family, NfTablesMessage::NewTable(TableMessage { attributes }))
}

fn new_chain(table: &Table, chain: &Chain) -> NetfilterMessage {
    let hook = match chain.hook {
        Hook::Prerouting => InetHookNumber::PreRouting,
        Hook::Input => InetHookNumber::LocalIn,
        Hook::Forward => InetHookNumber::Forward,
        Hook::Output => InetHookNumber::LocalOut,
        Hook::Postrouting => InetHookNumber::PostRouting,
    };
    // NF_DROP and NF_ACCEPT, linux/netfilter.h.
    let policy = if chain.policy == Policy::Drop { 0 } else { 1 };
    let attributes = vec![
        ChainAttribute::Table(table.name.clone()),
        ChainAttribute::Name(chain.name.clone()),
        ChainAttribute::Hook(vec![HookAttribute::Number(hook.into()), HookAttribute::Priority(chain.priority.cast_unsigned())]),
        ChainAttribute::Policy(policy),
        ChainAttribute::Type(if chain.kind == Kind::Nat { "nat" } else { "filter" }.to_owned()),
    ];
    message(table.family, NfTablesMessage::NewChain(ChainMessage { attributes }))
}

pub(crate) fn new_rule(table: &str, chain: &str, rule: &Rule) -> RuleMessage {
    let mut expressions: Vec<_> = rule.matches.iter().flat_map(matching).collect();
    expressions.extend(deciding(rule.verdict));
    let mut attributes =
        vec![RuleAttribute::Table(table.to_owned()), RuleAttribute::Chain(chain.to_owned()), RuleAttribute::Expressions(expressions)];
    attributes.extend(rule.comment.as_deref().map(|comment| RuleAttribute::UserData(user_data(comment))));
    RuleMessage { attributes }
}

/// Type, length and the NUL-terminated text; longer ones are cut.
fn user_data(comment: &str) -> Vec<u8> {
    let text: Vec<u8> = comment.bytes().take(COMMENT_MAX).chain([0]).collect();
    [&[COMMENT, text.len() as u8], text.as_slice()].concat()
}

type Expression = ListAttribute<ExpressionAttribute>;

fn expression(name: &str, attributes: Vec<DefaultNla>) -> Expression {
    Expressions::Other { expression_type: name.to_owned(), attributes }.into()
}

fn be(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// NFTA_DATA_VALUE inside attribute `kind`.
fn data(kind: u16, value: &[u8]) -> DefaultNla {
    nested(kind, &[(1, value)])
}

fn nested(kind: u16, inner: &[(u16, &[u8])]) -> DefaultNla {
    let mut bytes = Vec::new();
    for (kind, value) in inner {
        // struct nlattr: length with header, type; padded to four octets (netlink(7)).
        bytes.extend(((value.len() + 4) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

/// linux/netlink.h.
const NLA_F_NESTED: u16 = 1 << 15;

fn matching(matched: &Match) -> Vec<Expression> {
    match matched {
        Match::Protocol(protocol) => vec![meta(NFT_META_L4PROTO), compare(NFT_CMP_EQ, &[number(*protocol)])],
        Match::NotProtocol(protocol) => vec![meta(NFT_META_L4PROTO), compare(NFT_CMP_NEQ, &[number(*protocol)])],
        // The destination port is at the same place in TCP and UDP (RFC 9293 §3.1, RFC 768).
        Match::Port(port) => vec![payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2), compare(NFT_CMP_EQ, &port.to_be_bytes())],
        Match::ToLocal => vec![fib_destination_type(), compare(NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes())],
        Match::To(net) => address(net, 16, 24),
        Match::From(net) => address(net, 12, 8),
        Match::In(link) => vec![meta(NFT_META_IIFNAME), compare(NFT_CMP_EQ, &link_name(link))],
        Match::NotIn(link) => vec![meta(NFT_META_IIFNAME), compare(NFT_CMP_NEQ, &link_name(link))],
        Match::Out(link) => vec![meta(NFT_META_OIFNAME), compare(NFT_CMP_EQ, &link_name(link))],
        Match::Icmpv6(kind) => vec![
            meta(NFT_META_L4PROTO),
            compare(NFT_CMP_EQ, &[IPPROTO_ICMPV6]),
            payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1),
            compare(NFT_CMP_EQ, &[*kind]),
        ],
        Match::Established => connection_state(NF_CT_STATE_ESTABLISHED | NF_CT_STATE_RELATED),
        Match::Untracked => connection_state(NF_CT_STATE_UNTRACKED),
    }
}

/// enum nft_meta_keys.
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
/// enum nft_cmp_ops.
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
/// enum nft_payload_bases.
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
/// enum nft_ct_keys, and the state bits of linux/netfilter/nf_conntrack_common.h.
const NFT_CT_STATE: u32 = 0;
const NF_CT_STATE_ESTABLISHED: u32 = 1 << 1;
const NF_CT_STATE_RELATED: u32 = 1 << 2;
const NF_CT_STATE_UNTRACKED: u32 = 1 << 6;
/// enum nft_fib_result, nft_fib_flags; RTN_LOCAL of linux/rtnetlink.h.
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 1 << 1;
const RTN_LOCAL: u32 = 2;
/// linux/in.h.
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;
/// linux/if.h, with the terminating NUL.
const IFNAMSIZ: usize = 16;

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    }
}

/// NFTA_META_DREG, NFTA_META_KEY.
fn meta(key: u32) -> Expression {
    expression("meta", vec![be(1, NFT_REG_1), be(2, key)])
}

/// NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA.
fn compare(operation: u32, value: &[u8]) -> Expression {
    expression("cmp", vec![be(1, NFT_REG_1), be(2, operation), data(3, value)])
}

/// NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN.
fn payload(base: u32, offset: u32, length: u32) -> Expression {
    expression("payload", vec![be(1, NFT_REG_1), be(2, base), be(3, offset), be(4, length)])
}

/// NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR.
fn mask(bits: &[u8]) -> Expression {
    let zero = vec![0; bits.len()];
    expression("bitwise", vec![be(1, NFT_REG_1), be(2, NFT_REG_1), be(3, bits.len() as u32), data(4, bits), data(5, &zero)])
}

/// Any of those states. NFTA_CT_DREG, NFTA_CT_KEY.
fn connection_state(bits: u32) -> Vec<Expression> {
    vec![expression("ct", vec![be(1, NFT_REG_1), be(2, NFT_CT_STATE)]), mask(&bits.to_ne_bytes()), compare(NFT_CMP_NEQ, &[0; 4])]
}

/// NFTA_FIB_DREG, NFTA_FIB_RESULT, NFTA_FIB_FLAGS.
fn fib_destination_type() -> Expression {
    expression("fib", vec![be(1, NFT_REG_1), be(2, NFT_FIB_RESULT_ADDRTYPE), be(3, NFTA_FIB_F_DADDR)])
}

/// An address of the network header, at the offset of its family (RFC 791 §3.1, RFC 8200 §3), after the family itself.
fn address(net: &IpNet, v4_offset: u32, v6_offset: u32) -> Vec<Expression> {
    let (family, offset, octets) = match net.addr {
        IpAddr::V4(v4) => (libc::NFPROTO_IPV4 as u8, v4_offset, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::NFPROTO_IPV6 as u8, v6_offset, v6.octets().to_vec()),
    };
    let bits: Vec<u8> = (0..octets.len()).map(|octet| prefix_octet(usize::from(net.prefix), octet)).collect();
    let network: Vec<u8> = octets.iter().zip(&bits).map(|(octet, bits)| octet & bits).collect();
    vec![
        meta(NFT_META_NFPROTO),
        compare(NFT_CMP_EQ, &[family]),
        payload(NFT_PAYLOAD_NETWORK_HEADER, offset, octets.len() as u32),
        mask(&bits),
        compare(NFT_CMP_EQ, &network),
    ]
}

fn prefix_octet(prefix: usize, octet: usize) -> u8 {
    let ones = prefix.saturating_sub(octet * 8).min(8);
    u8::MAX.checked_shl(8 - ones as u32).unwrap_or(0)
}

fn link_name(link: &str) -> [u8; IFNAMSIZ] {
    let mut name = [0; IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(link.bytes().take(IFNAMSIZ - 1)) {
        *to = from;
    }
    name
}

fn deciding(verdict: Verdict) -> Vec<Expression> {
    match verdict {
        Verdict::Accept => vec![immediate_verdict(libc::NF_ACCEPT)],
        Verdict::Drop => vec![immediate_verdict(libc::NF_DROP)],
        // NFTA_REJECT_TYPE = NFT_REJECT_ICMPX_UNREACH, NFTA_REJECT_ICMP_CODE = NFT_REJECT_ICMPX_ADMIN_PROHIBITED.
        Verdict::Reject => vec![expression("reject", vec![be(1, 2), DefaultNla::new(2, vec![3])])],
        // NFTA_REDIR_REG_PROTO_MIN.
        Verdict::Redirect(port) => vec![immediate(&port.to_be_bytes()), expression("redir", vec![be(1, NFT_REG_1)])],
        Verdict::Masquerade => vec![expression("masq", vec![])],
        Verdict::NoTrack => vec![expression("notrack", vec![])],
    }
}

/// NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA.
fn immediate(value: &[u8]) -> Expression {
    expression("immediate", vec![be(1, NFT_REG_1), data(2, value)])
}

/// NFTA_DATA_VERDICT with NFTA_VERDICT_CODE inside.
fn immediate_verdict(code: i32) -> Expression {
    let code = code.to_be_bytes();
    let inner = [&8_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), &code].concat();
    expression("immediate", vec![be(1, NFT_REG_VERDICT), nested(2, &[(2 | NLA_F_NESTED, &inner)])])
}
