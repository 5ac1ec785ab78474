//! What [`Ruleset::redirect`] makes of real connections.
#![cfg(feature = "testing")]
// Helpers of tests may panic as the tests themselves do.
#![allow(clippy::unwrap_used)]

mod wire;

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
};

use netns::{
    link, orig_dst,
    ruleset::{Redirect, Ruleset},
    testing::{Host, Lan},
};
use wire::machines;

const LISTENER: u16 = 61443;

/// Two machines, the client under the rules.
fn redirected(barred: &[&str]) -> Option<(Lan, Host, Host)> {
    let (lan, server, client) = machines()?;
    let redirect = Redirect {
        table: "sandbox".into(),
        listener: LISTENER,
        ports: Some(vec![80]),
        networks: Vec::new(),
        barred: Some(barred.iter().map(|net| net.parse().unwrap()).collect()),
        dns: 61053,
    };
    client.run(|| link::up("lo").and_then(|()| Ruleset::redirect(&redirect).load())).unwrap().unwrap();
    Some((lan, server, client))
}

fn connect(client: &Host, to: &str) -> std::io::Result<TcpStream> {
    client.run(|| TcpStream::connect(to)).unwrap()
}

#[test]
fn only_what_is_redirected_is_tracked() {
    let Some((_lan, server, client)) = redirected(&[]) else { return };
    let tracked = || client.run(|| fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap()).unwrap().trim().to_owned();
    for (passed, redirected, loopback) in
        [("203.0.113.7:8080", "203.0.113.7:80", "127.0.0.1"), ("[2001:db8:113::7]:8080", "[2001:db8:113::7]:80", "[::1]")]
    {
        let before = tracked();
        let listener = server.run(|| TcpListener::bind(passed).unwrap()).unwrap();
        let there = connect(&client, passed).unwrap();
        assert_eq!(listener.accept().unwrap().1, there.local_addr().unwrap());
        assert_eq!(tracked(), before, "{passed}");
        let listener = client.run(|| TcpListener::bind(format!("{loopback}:{LISTENER}")).unwrap()).unwrap();
        let _there = connect(&client, redirected).unwrap();
        let (here, _) = listener.accept().unwrap();
        assert_eq!(orig_dst(&here).unwrap().addr(), redirected.parse::<SocketAddr>().unwrap());
        assert_ne!(tracked(), before, "{redirected}");
    }
}

#[test]
fn what_is_barred_is_refused() {
    let Some((_lan, server, client)) = redirected(&["203.0.113.8/32"]) else { return };
    for (to, reached) in [("203.0.113.7:8080", true), ("203.0.113.8:8080", false)] {
        let _listener = server.run(|| TcpListener::bind(to).unwrap()).unwrap();
        assert_eq!(connect(&client, to).is_ok(), reached, "{to}");
    }
}
