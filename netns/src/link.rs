//! Links, addresses and routes of the calling thread's network namespace, by rtnetlink(7).
use crate::error::Result;
use std::net::IpAddr;

/// An address with its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNet {
    pub addr: IpAddr,
    pub prefix: u8,
}

pub fn up(_link: &str) -> Result<()> {
    todo!()
}
/// `ip addr add NET dev LINK` (IPv6 without duplicate address detection).
pub fn add_address(_link: &str, _net: IpNet) -> Result<()> {
    todo!()
}
/// `ip route add default [via GATEWAY] dev LINK` for the family of `gateway`, or for both families when there is none.
pub fn add_default_route(_link: &str, _gateway: Option<IpAddr>) -> Result<()> {
    todo!()
}
/// Every address of every link of this namespace.
pub fn addresses() -> Result<Vec<IpAddr>> {
    todo!()
}
/// Whether a default route of that family exists.
pub fn has_default_route(_v6: bool) -> Result<bool> {
    todo!()
}
