//! Networks for the two ends of a link that no route or address of the host overlaps.

use std::{
    fs::File,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::errno::Errno;

use crate::{
    error::{Context, Error, Result},
    link::{self, IpNet},
};

/// Private networks (RFC 1918 §3), the least used first.
const PRIVATE: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(10, 0, 0, 0), 8), (Ipv4Addr::new(192, 168, 0, 0), 16)];
/// Networks tried in each block.
const TRIES: u32 = 32;

/// The two addresses of a link, each with the network's prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub outer: IpNet,
    pub inner: IpNet,
}

impl Pair {
    /// The first two hosts of `network`.
    fn of(network: IpNet) -> Self {
        let host = |number: u8| match network.addr {
            IpAddr::V4(addr) => IpAddr::V4((addr.to_bits() | u32::from(number)).into()),
            IpAddr::V6(addr) => IpAddr::V6((addr.to_bits() | u128::from(number)).into()),
        };
        let net = |number| IpNet { addr: host(number), prefix: network.prefix };
        Self { outer: net(1), inner: net(2) }
    }

    /// A /30 and, where this host has IPv6, a /126 of a unique local network (RFC 4193 §3.2.2: its 40 bits are random).
    pub fn free() -> Result<(Self, Option<Self>)> {
        let addresses = link::addresses()?;
        let taken: Vec<IpNet> = link::routes()?.into_iter().filter(is_specific).chain(addresses.iter().copied().map(IpNet::from)).collect();
        let v4 = (0..TRIES * PRIVATE.len() as u32).map(|turn| v4((turn / TRIES) as usize));
        let v6 = (0..TRIES).map(|_| v6());
        let global = |addr: &IpAddr| matches!(addr, IpAddr::V6(addr) if !addr.is_loopback() && !addr.is_unicast_link_local());
        let has_v6 = addresses.iter().any(global);
        Ok((pick(v4, &taken)?, if has_v6 { Some(pick(v6, &taken)?) } else { None }))
    }
}

fn pick(candidates: impl Iterator<Item = Result<IpNet>>, taken: &[IpNet]) -> Result<Pair> {
    for candidate in candidates {
        let candidate = candidate?;
        if !taken.iter().any(|net| net.overlaps(&candidate)) {
            return Ok(Pair::of(candidate));
        }
    }
    Err(Error { action: "find a private network that no route of this host overlaps".to_owned(), source: Errno::EADDRINUSE })
}

fn v4(block: usize) -> Result<IpNet> {
    let (base, prefix) = PRIVATE[block % PRIVATE.len()];
    let within = u32::from_ne_bytes(random()?) & (u32::MAX >> prefix) & !0b11;
    Ok(IpNet { addr: IpAddr::V4((base.to_bits() | within).into()), prefix: 30 })
}

fn v6() -> Result<IpNet> {
    let [a, b, c, d, e] = random()?;
    let addr = Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Ok(IpNet { addr: IpAddr::V6(addr), prefix: 126 })
}

/// Not a default route, nor a part of one as VPNs set them (0.0.0.0/1, 2000::/3): nothing narrower than the private blocks is left out.
fn is_specific(net: &IpNet) -> bool {
    net.prefix >= if net.is_v6() { 7 } else { 8 }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut octets = [0; N];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut octets)).context(|| "read /dev/urandom".to_owned())?;
    Ok(octets)
}
