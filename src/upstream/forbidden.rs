//! Addresses that a run never reaches: cloud metadata, link-local, and the host itself under every address it has.

use super::UpstreamError;
use crate::defence::Defence;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Metadata services outside the link-local ranges. AWS: fd00:ec2::254 (EC2 user guide, "Instance metadata"), Google Cloud: fd20:ce::254
/// (Compute Engine, "Query VM metadata"), Alibaba Cloud: 100.100.100.200 (ECS, "Instance metadata"), Azure: 168.63.129.16 (WireServer).
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// How long a list of the host's own addresses is good for. Short, since an address may come at any time (DHCP, VPN); not zero, since a
/// listing walks every link in the kernel while a burst of dials needs it once.
const OWN_ADDRESSES_AGE: Duration = Duration::from_millis(500);

/// The rule as one run applies it.
pub struct Rule {
    allow_host: bool,
    named: Vec<(IpAddr, Option<u16>)>,
    own: Mutex<Option<(Instant, Arc<[IpAddr]>)>>,
}

impl Rule {
    /// `allow_host`: loopback and the host's own addresses may be reached; metadata and link-local may not even then. `named`: what the user
    /// allowed by address, all ports where there is none.
    pub fn new(allow_host: bool, named: Vec<(IpAddr, Option<u16>)>) -> Self {
        Self { allow_host, named, own: Mutex::new(None) }
    }

    /// Whether the user allowed this very address. The host's loopback has a flag of its own.
    pub fn names(&self, addr: SocketAddr) -> bool {
        let matches = |(ip, port): &(IpAddr, Option<u16>)| *ip == addr.ip().to_canonical() && port.is_none_or(|port| port == addr.port());
        !addr.ip().to_canonical().is_loopback() && self.named.iter().any(matches)
    }

    /// Whether `addr` may be dialled. Not knowing the host's addresses is an error: nothing is dialled then.
    pub fn check(&self, addr: SocketAddr) -> Result<(), UpstreamError> {
        if self.names(addr) || !Defence::DialRule.active() {
            return Ok(());
        }
        let forbidden = never(addr.ip()) || (!self.allow_host && is_host(addr.ip(), &self.own().map_err(UpstreamError::OwnAddresses)?));
        if forbidden { Err(UpstreamError::Forbidden(addr)) } else { Ok(()) }
    }

    /// The addresses of every link (getifaddrs(3)), at most [`OWN_ADDRESSES_AGE`] old.
    fn own(&self) -> io::Result<Arc<[IpAddr]>> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, addresses)) = &*own
            && read.elapsed() < OWN_ADDRESSES_AGE
        {
            return Ok(addresses.clone());
        }
        let addresses: Arc<[IpAddr]> = nix::ifaddrs::getifaddrs()?.filter_map(|link| ip(&link.address?)).collect();
        *own = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Metadata, link-local, unspecified, multicast, broadcast: no setting makes these reachable.
pub fn never(ip: IpAddr) -> bool {
    spellings(ip).any(|ip| METADATA.contains(&ip) || reserved(ip))
}

/// The same for a router: networks, as address and prefix length, that a namespace with an uplink of its own may not be routed to.
pub fn networks() -> Vec<(IpAddr, u8)> {
    let single = METADATA.into_iter().map(|ip| (ip, if ip.is_ipv4() { 32 } else { 128 }));
    // Link-local: RFC 3927 §2.1, RFC 4291 §2.5.6.
    let link_local = [(Ipv4Addr::new(169, 254, 0, 0).into(), 16), (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10)];
    single.chain(link_local).collect()
}

/// Loopback, or one of the host's `own` addresses.
pub fn is_host(ip: IpAddr, own: &[IpAddr]) -> bool {
    spellings(ip).any(|ip| ip.is_loopback() || own.contains(&ip))
}

fn reserved(ip: IpAddr) -> bool {
    match ip {
        // 0.0.0.0/8 is "this host" (RFC 1122 §3.2.1.3), and Linux connects 0.0.0.0 to loopback.
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast(),
    }
}

/// The address itself and the IPv4 address that it carries inside, if any: a translator or tunnel on the way would unwrap it.
fn spellings(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let inside = match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded(v6).map(IpAddr::V4),
    };
    [Some(ip), inside].into_iter().flatten()
}

fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        // `::` and `::1` are IPv6's own unspecified and loopback addresses, not IPv4-compatible ones.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible and IPv4-mapped (RFC 4291 §2.5.5), NAT64 (RFC 6052 §2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        // 6to4 (RFC 3056 §2).
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [&str; 2] = ["192.0.2.9", "2001:db8::9"];

    fn own() -> Vec<IpAddr> {
        OWN.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn what_no_setting_opens() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "168.63.129.16",
            "fe80::1",
            "febf::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.251",
            "ff02::fb",
            "255.255.255.255",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::168.63.129.16",
            "2002:a9fe:a9fe::1",
            "::ffff:0.0.0.0",
        ] {
            assert!(never(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_host_under_each_of_its_names() {
        for text in [
            "127.0.0.1",
            "127.255.255.254",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "192.0.2.9",
            "::ffff:192.0.2.9",
            "64:ff9b::192.0.2.9",
            "2002:c000:209::",
            "2001:db8::9",
        ] {
            assert!(is_host(text.parse().unwrap(), &own()), "{text}");
        }
    }

    #[test]
    fn everyone_else_is_reachable() {
        for text in [
            "203.0.113.7",
            "192.0.2.8",
            "10.0.0.1",
            "100.100.100.201",
            "168.63.129.17",
            "169.253.255.255",
            "2001:db8::1",
            "fd00:ec2::253",
            "64:ff9b::203.0.113.7",
            "2002:cb00:7107::1",
            "::ffff:203.0.113.7",
            "fec0::1",
        ] {
            let ip = text.parse().unwrap();
            assert!(!never(ip) && !is_host(ip, &own()), "{text}");
        }
    }

    #[test]
    fn an_address_that_the_user_named_is_reachable() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let named = ["169.254.169.254", "fd00:ec2::254", "127.0.0.1", "192.0.2.9"].map(|ip| (ip.parse().unwrap(), None));
        let rule = Rule::new(false, [&named[..], &[("100.100.100.200".parse().unwrap(), Some(80))]].concat());
        for text in ["169.254.169.254:80", "[fd00:ec2::254]:1", "[::ffff:169.254.169.254]:80", "192.0.2.9:22", "100.100.100.200:80"] {
            assert!(rule.check(addr(text)).is_ok(), "{text}");
        }
        for text in ["169.254.169.253:80", "100.100.100.200:81", "127.0.0.1:22", "[::ffff:127.0.0.1]:22", "[64:ff9b::a9fe:a9fe]:80"] {
            assert!(rule.check(addr(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn the_rule_knows_this_hosts_addresses() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (closed, open) = (Rule::new(false, Vec::new()), Rule::new(true, Vec::new()));
        assert!(matches!(closed.check(addr("127.0.0.1:80")), Err(UpstreamError::Forbidden(_))));
        assert!(open.check(addr("127.0.0.1:80")).is_ok());
        assert!(open.check(addr("169.254.169.254:80")).is_err());
        assert!(closed.check(addr("203.0.113.7:443")).is_ok());
        for own in closed.own().unwrap().iter().filter(|ip| !never(**ip)) {
            assert!(closed.check((*own, 22).into()).is_err(), "{own}");
            assert!(open.check((*own, 22).into()).is_ok(), "{own}");
        }
    }
}
