//! Names inside a run: every question meets the run's own resolver.

use crate::{
    Case,
    support::world::{World, succeeded},
};
use std::process::Command;

/// `h3` in an ALPN parameter, in hex (RFC 9460 §7.1.1: each identifier has an octet of length before it).
pub const H3: &str = "026833";
/// The configuration list of an encrypted ClientHello as the test internet serves it.
pub const ECH: &str = "0004fe0d0000";

pub const CASES: &[Case] = &[
    ("glibc_resolves_both_families", glibc_resolves_both_families),
    ("musl_resolves_and_connects", musl_resolves_and_connects),
    ("any_server_is_the_stub", any_server_is_the_stub),
    ("service_records_invite_to_nothing_hidden", service_records_invite_to_nothing_hidden),
    ("search_domain_works", search_domain_works),
    ("large_answers_come_over_tcp", large_answers_come_over_tcp),
    ("unknown_names_do_not_exist", unknown_names_do_not_exist),
];

fn ask(world: &World, server: &str, transport: &str, name: &str, kind: &str) -> String {
    succeeded(&world.inside(&["python3", "ask_dns.py", server, transport, name, kind]))
}

fn glibc_resolves_both_families(world: &World) {
    let said = succeeded(&world.inside(&["getent", "ahosts", "other.test"]));
    assert!(said.contains("203.0.113.11") && said.contains("2001:db8:113::11"), "{said}");
}

fn musl_resolves_and_connects(world: &World) {
    let program = world.path("static");
    let built = Command::new("musl-gcc").args(["-static", "-O1", "-o"]).arg(&program).arg(world.home().join("static.c")).output();
    assert!(built.expect("musl-gcc (package musl-tools)").status.success());
    let said = succeeded(&world.inside(&[program.to_str().unwrap(), "raw.test", "7"]));
    assert!(said.contains("203.0.113.12\n") && said.ends_with("hello\n"), "{said}");
}

fn any_server_is_the_stub(world: &World) {
    for server in ["8.8.8.8", "127.0.0.53", "203.0.113.99", "2001:db8:113::99"] {
        for transport in ["udp", "tcp"] {
            let said = ask(world, server, transport, "api.acme.test", "1");
            assert!(said.starts_with("rcode=0 tc=0 answers=1\n") && said.contains("cb00710a"), "{server} {transport}: {said}");
        }
    }
    let control = world.outside(&["timeout", "1", "python3", "ask_dns.py", "127.0.0.53", "tcp", "api.acme.test", "1"]);
    assert!(!control.status.success(), "nothing answers on 127.0.0.53 outside");
}

fn service_records_invite_to_nothing_hidden(world: &World) {
    for transport in ["udp", "tcp"] {
        let said = ask(world, "203.0.113.53", transport, "api.openai.com", "65");
        assert!(!said.contains(H3) && !said.contains(ECH), "{said}");
    }
}

fn search_domain_works(world: &World) {
    assert!(succeeded(&world.inside(&["getent", "ahostsv4", "svc"])).contains("203.0.113.11"));
}

fn large_answers_come_over_tcp(world: &World) {
    assert!(ask(world, "203.0.113.53", "udp", "big.test", "16").starts_with("rcode=0 tc=1"));
    assert!(ask(world, "203.0.113.53", "tcp", "big.test", "16").starts_with("rcode=0 tc=0 answers=20\n"));
}

fn unknown_names_do_not_exist(world: &World) {
    assert!(ask(world, "203.0.113.53", "udp", "nothing.test", "1").starts_with("rcode=3 tc=0 answers=0\n"));
}
