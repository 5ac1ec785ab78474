//! The namespace's ruleset: what is redirected, what is left alone, what is refused.

use crate::dns;
use netns::{
    link::IpNet,
    ruleset::{Redirect, Ruleset},
};

/// Where redirected TCP arrives. Above the ephemeral ports (net.ipv4.ip_local_port_range, 32768 to 60999) and registered for nothing.
pub const LISTENER: u16 = 61443;
/// Where the DNS stub listens, UDP and TCP.
pub const DNS: u16 = 61053;
/// Intercepted in every run.
pub const WEB: [u16; 2] = [80, 443];

/// `ports`: what is intercepted where the uplink carries other TCP; none means every port. `barred`: where the uplink may not be used for what is
/// left; none means that nothing but TCP and DNS passes.
pub fn inside(ports: Option<&[u16]>, barred: Option<&[IpNet]>) -> Ruleset {
    Ruleset::redirect(&Redirect {
        table: "sandbox".to_owned(),
        listener: LISTENER,
        ports: ports.map(<[u16]>::to_vec),
        networks: dns::made_up_networks().map(|(addr, prefix)| IpNet { addr, prefix }).to_vec(),
        barred: barred.map(<[IpNet]>::to_vec),
        dns: DNS,
    })
}
