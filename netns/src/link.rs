//! Links, addresses and routes of the calling thread's network namespace, by rtnetlink(7).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
    str::FromStr,
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::{errno::Errno, net::if_::if_nametoindex, poll::PollTimeout};

use crate::{
    error::{Context, Error, Result},
    netlink::{Netlink, Refusal},
};

/// Multicast groups of addresses, IPv4 and IPv6, and of IPv6 routes, linux/rtnetlink.h.
const RTNLGRP_IFADDR: [u32; 2] = [5, 9];
const RTNLGRP_IPV6_ROUTE: u32 = 11;
/// How long nothing at all may happen to the routes while one is awaited, in milliseconds. It takes one pass of the kernel's work queue.
const SILENCE: u16 = 5_000;

/// An address with its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpNet {
    pub addr: IpAddr,
    /// 0 to 32, or 0 to 128.
    pub prefix: u8,
}

/// `not an address with a prefix length: 203.0.113.7/33`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an address with a prefix length: {0}")]
pub struct ParseIpNetError(String);

pub fn up(link: &str) -> Result<()> {
    let action = || format!("set {link} up");
    let mut message = LinkMessage::default();
    message.header.index = index(link, action)?;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    change(RouteNetlinkMessage::SetLink(message), 0, action)
}

/// `ip link set LINK mtu MTU`
pub fn set_mtu(link: &str, mtu: u32) -> Result<()> {
    let action = || format!("set the MTU of {link} to {mtu}");
    let mut message = LinkMessage::default();
    message.header.index = index(link, action)?;
    message.attributes = vec![LinkAttribute::Mtu(mtu)];
    change(RouteNetlinkMessage::SetLink(message), 0, action)
}

/// `ip addr add NET dev LINK` (IPv6 without duplicate address detection). On return the address can be used: the kernel makes the local route of
/// an IPv6 address only after it has acknowledged the address, and until then a connection to it fails with ENETUNREACH.
pub fn add_address(link: &str, net: IpNet) -> Result<()> {
    let action = || format!("add address {net} to {link}");
    let mut message = AddressMessage::default();
    message.header.index = index(link, action)?;
    message.header.family = family(net.is_v6());
    message.header.prefix_len = net.prefix;
    message.attributes = vec![AddressAttribute::Address(net.addr), AddressAttribute::Local(net.addr)];
    if net.is_v6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    let add = || change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, action);
    if net.is_v6() { until_local(net.addr, add, action) } else { add() }
}

/// Does `add` and waits for what makes `addr` local.
fn until_local(addr: IpAddr, add: impl FnOnce() -> Result<()>, action: impl Fn() -> String + Copy) -> Result<()> {
    let failed = |refusal: Refusal| refusal.into_error(action());
    let mut routes = Netlink::open(NETLINK_ROUTE).map_err(failed)?;
    routes.watch(&[RTNLGRP_IPV6_ROUTE]).map_err(failed)?;
    add()?;
    while !is_local(addr).map_err(failed)? {
        routes.changed(PollTimeout::from(SILENCE)).map_err(failed)?;
    }
    Ok(())
}

/// Whether packets to `addr` stay in this namespace.
fn is_local(addr: IpAddr) -> std::result::Result<bool, Refusal> {
    let mut request = RouteMessage::default();
    request.header.address_family = family(addr.is_ipv6());
    request.header.destination_prefix_length = IpNet::from(addr).prefix;
    request.attributes = vec![RouteAttribute::Destination(route_address(addr))];
    match Netlink::open(NETLINK_ROUTE)?.ask(RouteNetlinkMessage::GetRoute(request)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(route.header.kind == RouteType::Local),
        Ok(_) => Err(Errno::EBADMSG.into()),
        Err(Refusal { errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH, .. }) => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

/// `ip route add default [via GATEWAY] dev LINK` for the family of `gateway`, or for both families when there is none.
pub fn add_default_route(link: &str, gateway: Option<IpAddr>) -> Result<()> {
    match gateway {
        Some(gateway) => add_route(link, IpNet::any(gateway.is_ipv6()), Some(gateway)),
        None => [false, true].into_iter().try_for_each(|v6| add_route(link, IpNet::any(v6), None)),
    }
}

/// `ip route add NET [via GATEWAY] dev LINK`.
pub fn add_route(link: &str, to: IpNet, gateway: Option<IpAddr>) -> Result<()> {
    let action = || match gateway {
        Some(gateway) => format!("add route to {to} via {gateway} dev {link}"),
        None => format!("add route to {to} dev {link}"),
    };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(to.is_v6()),
        destination_prefix_length: to.prefix,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: if gateway.is_none() && !to.is_v6() { RouteScope::Link } else { RouteScope::Universe },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Oif(index(link, action)?), RouteAttribute::Destination(route_address(to.network().addr))];
    message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(route_address(gateway))));
    change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL, action)
}

/// Makes the veth(4) pair `link` here and `peer` in the network namespace `peer_netns`; both are down.
pub fn add_veth(link: &str, peer: &str, peer_netns: BorrowedFd<'_>) -> Result<()> {
    let mut other = LinkMessage::default();
    other.attributes = vec![LinkAttribute::IfName(peer.to_owned()), LinkAttribute::NetNsFd(peer_netns.as_raw_fd())];
    let data = InfoData::Veth(InfoVeth::Peer(other));
    add_link(link, vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)], || format!("add veth {link} with peer {peer}"))
}

/// Makes a bridge; it is down.
pub fn add_bridge(link: &str) -> Result<()> {
    add_link(link, vec![LinkInfo::Kind(InfoKind::Bridge)], || format!("add bridge {link}"))
}

/// `ip link set LINK master BRIDGE`.
pub fn set_bridge(link: &str, bridge: &str) -> Result<()> {
    let action = || format!("plug {link} into {bridge}");
    let mut message = LinkMessage::default();
    message.header.index = index(link, action)?;
    message.attributes = vec![LinkAttribute::Controller(index(bridge, action)?)];
    change(RouteNetlinkMessage::SetLink(message), 0, action)
}

/// Removes a link; of a veth pair both ends.
pub fn remove(link: &str) -> Result<()> {
    let action = || format!("remove link {link}");
    let mut message = LinkMessage::default();
    message.header.index = index(link, action)?;
    change(RouteNetlinkMessage::DelLink(message), 0, action)
}

/// The names of every link of this namespace.
pub fn names() -> Result<Vec<String>> {
    let found = dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), "list links")?;
    let attributes = found.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(link.attributes),
        _ => None,
    });
    let name = |attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    };
    Ok(attributes.flatten().filter_map(name).collect())
}

/// Every address of every link of this namespace.
pub fn addresses() -> Result<Vec<IpAddr>> {
    let found = dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), "list addresses")?;
    let address = |message| match message {
        RouteNetlinkMessage::NewAddress(address) => local_address(&address.attributes),
        _ => None,
    };
    Ok(found.into_iter().filter_map(address).collect())
}

/// Has something to read whenever an address of this namespace comes or goes.
pub(crate) fn watch_addresses() -> Result<Netlink> {
    let watching = Netlink::open(NETLINK_ROUTE).and_then(|mut netlink| netlink.watch(&RTNLGRP_IFADDR).map(|()| netlink));
    watching.map_err(|refusal| refusal.into_error("watch addresses"))
}

/// The destination of every route of every table, of both families; a default route is `0.0.0.0/0` or `::/0`.
pub fn routes() -> Result<Vec<IpNet>> {
    let mut nets = Vec::new();
    for v6 in [false, true] {
        nets.extend(route_messages(v6)?.iter().filter_map(|route| destination(route, v6)));
    }
    Ok(nets)
}

/// Whether a default route of that family exists, in any table.
pub fn has_default_route(v6: bool) -> Result<bool> {
    let default = |route: &RouteMessage| route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast;
    Ok(route_messages(v6)?.iter().any(default))
}

impl IpNet {
    /// `0.0.0.0/0` or `::/0`.
    pub const fn any(v6: bool) -> Self {
        Self { addr: if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) }, prefix: 0 }
    }

    pub const fn is_v6(&self) -> bool {
        self.addr.is_ipv6()
    }

    /// The same network with every host bit cleared.
    pub fn network(&self) -> Self {
        let addr = match self.addr {
            IpAddr::V4(addr) => {
                IpAddr::V4((addr.to_bits() & u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix.into())).unwrap_or(0)).into())
            }
            IpAddr::V6(addr) => {
                IpAddr::V6((addr.to_bits() & u128::MAX.checked_shl(128_u32.saturating_sub(self.prefix.into())).unwrap_or(0)).into())
            }
        };
        Self { addr, prefix: self.prefix }
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv6() == addr.is_ipv6() && Self { addr, prefix: self.prefix }.network() == self.network()
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network().addr) || other.contains(self.network().addr)
    }

    /// Whether it is one address and not a range.
    pub fn is_host(&self) -> bool {
        self.prefix == if self.is_v6() { 128 } else { 32 }
    }
}

impl From<IpAddr> for IpNet {
    fn from(addr: IpAddr) -> Self {
        Self { addr, prefix: if addr.is_ipv6() { 128 } else { 32 } }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// `203.0.113.7/24`; without a prefix length, one address.
impl FromStr for IpNet {
    type Err = ParseIpNetError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let refused = || ParseIpNetError(text.to_owned());
        let (addr, prefix) = text.split_once('/').map_or((text, None), |(addr, prefix)| (addr, Some(prefix)));
        let host = Self::from(addr.parse::<IpAddr>().map_err(|_| refused())?);
        let prefix = prefix.map_or(Ok(host.prefix), |prefix| prefix.parse().map_err(|_| refused()))?;
        if prefix > host.prefix { Err(refused()) } else { Ok(Self { prefix, ..host }) }
    }
}

fn add_link(link: &str, info: Vec<LinkInfo>, action: impl Fn() -> String) -> Result<()> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(link.to_owned()), LinkAttribute::LinkInfo(info)];
    change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, action)
}

fn index(link: &str, action: impl FnOnce() -> String) -> Result<u32> {
    if_nametoindex(link).context(action)
}

fn change(message: RouteNetlinkMessage, flags: u16, action: impl FnOnce() -> String) -> Result<()> {
    Netlink::open(NETLINK_ROUTE).and_then(|netlink| netlink.change(message, flags)).map_err(|refusal| refusal.into_error(action()))
}

fn dump(request: RouteNetlinkMessage, action: &str) -> Result<Vec<RouteNetlinkMessage>> {
    Netlink::open(NETLINK_ROUTE)
        .and_then(|netlink| netlink.dump(request))
        .map_err(|refusal: Refusal| -> Error { refusal.into_error(action) })
}

fn route_messages(v6: bool) -> Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family(v6);
    let route = |message| match message {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    };
    Ok(dump(RouteNetlinkMessage::GetRoute(request), "list routes")?.into_iter().filter_map(route).collect())
}

fn destination(route: &RouteMessage, v6: bool) -> Option<IpNet> {
    let prefix = route.header.destination_prefix_length;
    let addr = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(IpAddr::V4(*addr)),
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        _ => None,
    });
    match addr {
        Some(addr) => Some(IpNet { addr, prefix }),
        None => (prefix == 0).then_some(IpNet::any(v6)),
    }
}

/// On a point-to-point link IFA_ADDRESS is the other side's and IFA_LOCAL ours; IPv6 has only IFA_ADDRESS (rtnetlink(7)).
fn local_address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| if let AddressAttribute::Local(addr) = attribute { Some(*addr) } else { None });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| if let AddressAttribute::Address(addr) = attribute { Some(*addr) } else { None })
    })
}

fn family(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn route_address(addr: IpAddr) -> RouteAddress {
    match addr {
        IpAddr::V4(addr) => RouteAddress::Inet(addr),
        IpAddr::V6(addr) => RouteAddress::Inet6(addr),
    }
}
