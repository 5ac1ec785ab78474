//! The namespace's ruleset: what is redirected, what is left alone, what is refused.

use netns::ruleset::{Redirect, Ruleset};

use super::plan::Egress;

/// Where redirected TCP arrives. Above the ephemeral ports (net.ipv4.ip_local_port_range, 32768 to 60999) and registered for nothing.
pub const LISTENER: u16 = 61443;
/// Where the DNS stub listens, UDP and TCP.
pub const DNS: u16 = 61053;
/// Intercepted in every run with an uplink of its own.
pub const WEB: [u16; 2] = [80, 443];

/// `ports`: what is intercepted where the uplink carries the rest.
pub fn inside(egress: Egress, ports: Option<&[u16]>) -> Ruleset {
    let ports = (egress == Egress::Veth).then(|| ports.unwrap_or(&WEB).to_vec());
    Ruleset::redirect(&Redirect { table: "sandbox".to_owned(), listener: LISTENER, ports, dns: DNS })
}
