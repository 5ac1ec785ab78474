//! What the kernel has loaded, read attribute by attribute: other programs' rules may hold expressions that no library knows.

use std::convert::Infallible;

use netlink_packet_core::{NLA_HEADER_SIZE, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlaBuffer};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{COMMENT, NFNETLINK_V0, NFNL_SUBSYS_NFTABLES};
use crate::{
    netlink::{Netlink, Refusal},
    ruleset::Family,
};

/// enum nf_tables_msg_types.
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
/// `struct nfgenmsg` in bytes, linux/netfilter/nfnetlink.h.
const NFGENMSG_LEN: usize = 4;

pub(crate) struct TableInfo {
    pub family: Family,
    pub name: String,
}

pub(crate) struct ChainInfo {
    pub family: Family,
    pub table: String,
    pub name: String,
    /// enum nf_inet_hooks; `None` unless it is a base chain.
    pub hook: Option<u32>,
    /// NF_DROP or NF_ACCEPT.
    pub policy: Option<u32>,
}

pub(crate) struct RuleInfo {
    pub family: Family,
    pub table: String,
    pub chain: String,
    pub handle: u64,
    pub comment: Option<String>,
    /// Drops, rejects, or decides by something that is not looked into.
    pub may_drop: bool,
}

/// The tables of the families that are known here.
pub(crate) fn tables() -> Result<Vec<TableInfo>, Refusal> {
    // NFTA_TABLE_NAME.
    let table = |object: Object| Some(TableInfo { family: object.family()?, name: object.text(1)? });
    Ok(dump(NFT_MSG_GETTABLE)?.into_iter().filter_map(table).collect())
}

pub(crate) fn chains() -> Result<Vec<ChainInfo>, Refusal> {
    // NFTA_CHAIN_TABLE, _NAME, _HOOK with NFTA_HOOK_HOOKNUM inside, _POLICY.
    let chain = |object: Object| {
        Some(ChainInfo {
            family: object.family()?,
            table: object.text(1)?,
            name: object.text(3)?,
            hook: find(&object.attributes, 4).and_then(|hook| number(hook, 1)),
            policy: number(&object.attributes, 5),
        })
    };
    Ok(dump(NFT_MSG_GETCHAIN)?.into_iter().filter_map(chain).collect())
}

pub(crate) fn rules() -> Result<Vec<RuleInfo>, Refusal> {
    // NFTA_RULE_TABLE, _CHAIN, _HANDLE, _USERDATA, _EXPRESSIONS.
    let rule = |object: Object| {
        Some(RuleInfo {
            family: object.family()?,
            table: object.text(1)?,
            chain: object.text(2)?,
            handle: u64::from_be_bytes(find(&object.attributes, 3)?.try_into().ok()?),
            comment: find(&object.attributes, 7).and_then(comment),
            may_drop: find(&object.attributes, 4).is_some_and(|list| attributes(list).any(|(_, expression)| may_drop(expression))),
        })
    };
    Ok(dump(NFT_MSG_GETRULE)?.into_iter().filter_map(rule).collect())
}

/// The comment in user data: a list of type, length and that many octets (libnftnl, udata.h).
pub(crate) fn comment(user_data: &[u8]) -> Option<String> {
    let mut rest = user_data;
    while let Some((&[kind, length], after)) = rest.split_first_chunk() {
        let (value, after) = after.split_at_checked(usize::from(length))?;
        if kind == COMMENT {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        rest = after;
    }
    None
}

/// NFTA_EXPR_NAME and NFTA_EXPR_DATA.
pub(crate) fn may_drop(expression: &[u8]) -> bool {
    let data = find(expression, 2).unwrap_or_default();
    match find(expression, 1) {
        // An x_tables target is not looked into.
        Some(b"reject\0" | b"target\0") => true,
        // NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE; NF_DROP is 0.
        Some(b"immediate\0") => {
            find(data, 2).and_then(|data| find(data, 2)).and_then(|verdict| number(verdict, 1)) == Some(libc::NF_DROP.cast_unsigned())
        }
        // NFTA_LOOKUP_DREG = NFT_REG_VERDICT: a verdict map.
        Some(b"lookup\0") => number(data, 3) == Some(super::NFT_REG_VERDICT),
        _ => false,
    }
}

fn dump(kind: u16) -> Result<Vec<Object>, Refusal> {
    Netlink::open(NETLINK_NETFILTER)?.dump(Object { kind, family: 0, attributes: Vec::new() })
}

/// A message of nf_tables as it is.
#[derive(Clone)]
struct Object {
    kind: u16,
    /// NFPROTO_*; 0 in a request is every family.
    family: u8,
    attributes: Vec<u8>,
}

impl Object {
    fn family(&self) -> Option<Family> {
        match i32::from(self.family) {
            libc::NFPROTO_INET => Some(Family::Inet),
            libc::NFPROTO_IPV4 => Some(Family::Ip),
            libc::NFPROTO_IPV6 => Some(Family::Ip6),
            _ => None,
        }
    }

    fn text(&self, kind: u16) -> Option<String> {
        find(&self.attributes, kind).map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    }
}

impl NetlinkSerializable for Object {
    fn message_type(&self) -> u16 {
        NFNL_SUBSYS_NFTABLES << 8 | self.kind
    }

    fn buffer_len(&self) -> usize {
        NFGENMSG_LEN + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let bytes = [&[self.family, NFNETLINK_V0, 0, 0], self.attributes.as_slice()].concat();
        buffer.copy_from_slice(&bytes);
    }
}

impl NetlinkDeserializable for Object {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        let (head, attributes) = payload.split_at_checked(NFGENMSG_LEN).unwrap_or_default();
        let family = head.first().copied().unwrap_or_default();
        Ok(Self { kind: header.message_type & 0xff, family, attributes: attributes.to_vec() })
    }
}

/// Kind, without the flags of linux/netlink.h, and value of each.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let attribute = NlaBuffer::new_checked(bytes).ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        let value = bytes.get(NLA_HEADER_SIZE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    find(bytes, kind)?.try_into().ok().map(u32::from_be_bytes)
}
