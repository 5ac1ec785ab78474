//! What a transparent run needs.

use netns::spawn::{Ids, Namespaces};
use nix::unistd::{getegid, geteuid};

use super::Check;
use crate::run::{RunError, sandbox};

/// What must be tried while this process has the rights it was called with, before it becomes the invoking user.
pub fn privileged() -> Vec<Check> {
    let root = geteuid().is_root();
    let user = (!root).then(|| Ids { uid: geteuid().as_raw(), gid: getegid().as_raw() });
    let sandbox = match sandbox::probe(Namespaces { user }) {
        Ok(()) => Check::ok("sandbox", "namespaces can be made and rules loaded in them"),
        Err(gate) => Check::failed("sandbox", &RunError::Gate(gate).into()),
    };
    let uplink = if root {
        Check::ok("uplink", "veth (root): TCP, UDP and ICMP leave a run")
    } else {
        Check::warning(
            "uplink",
            "relay (no root): TCP and DNS leave a run, UDP and ICMP do not",
            "where they are needed, use sudo or --egress pasta (package passt)",
        )
    };
    vec![sandbox, uplink]
}

/// What needs no rights.
pub fn unprivileged() -> Vec<Check> {
    vec![ipv6()]
}

fn ipv6() -> Check {
    let name = "ipv6";
    match netns::link::has_default_route(true) {
        Ok(true) => Check::ok(name, "this host has a route; a run has both families"),
        Ok(false) => Check::ok(name, "this host has no route; a run is told IPv4 addresses only"),
        Err(error) => Check::failed(name, &RunError::from(error).into()),
    }
}
