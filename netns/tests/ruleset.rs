//! Rules as the kernel has them, listed by nft(8), against rules as they are printed here.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use netns::{
    NetNs,
    link::IpNet,
    ruleset::{Chain, FILTER, Family, Hook, Kind, Match, NAT_DST, Policy, Protocol, RAW, Redirect, Rule, Ruleset, Table, Verdict},
};

/// What `nft list ruleset` prints in a new namespace after `load`; `None` where this user may have none, or nft is not installed.
fn listed(load: impl FnOnce()) -> Option<String> {
    let namespace = match NetNs::new() {
        Ok(namespace) => namespace,
        Err(error) if std::env::var_os("NETNS_REQUIRE").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    namespace
        .run(|| {
            load();
            let output = Command::new("nft").args(["list", "ruleset"]).output().ok()?;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        })
        .unwrap()
}

fn agree(ruleset: &Ruleset) {
    if let Some(listed) = listed(|| ruleset.load().unwrap()) {
        assert_eq!(listed, ruleset.to_string());
    }
}

#[test]
fn the_redirecting_rules_are_what_nft_lists() {
    let redirect = Redirect { table: "sandbox".into(), listener: 61443, ports: None, networks: Vec::new(), barred: None, dns: 61053 };
    agree(&Ruleset::redirect(&redirect));
    let networks = ["198.18.0.0/15", "fd8b:3a5e:91c4:c612::/64"].map(|net| net.parse().unwrap()).to_vec();
    let open = Redirect { ports: Some(vec![80, 443]), networks: networks.clone(), barred: Some(Vec::new()), ..redirect.clone() };
    agree(&Ruleset::redirect(&open));
    let barred = ["169.254.0.0/16", "fe80::/10"].map(|net| net.parse().unwrap()).to_vec();
    agree(&Ruleset::redirect(&Redirect { networks, barred: Some(barred), ..redirect }));
}

#[test]
fn every_match_and_verdict_is_what_nft_lists() {
    let net = |addr: &str, prefix| IpNet { addr: addr.parse().unwrap(), prefix };
    let matches = [
        vec![Match::Protocol(Protocol::Tcp)],
        vec![Match::NotProtocol(Protocol::Udp)],
        vec![Match::Protocol(Protocol::Udp), Match::Port(53)],
        vec![Match::ToLocal],
        vec![Match::To(net("203.0.113.0", 24))],
        vec![Match::From(net("203.0.113.7", 32))],
        vec![Match::To(net("2001:db8::", 32))],
        vec![Match::From(net("2001:db8::7", 128))],
        vec![Match::In("machine".into()), Match::Established],
        vec![Match::NotIn("machine".into())],
        vec![Match::Protocol(Protocol::Tcp), Match::Untracked],
        vec![Match::Out("machine".into())],
        vec![Match::In("machine".into()), Match::Icmpv6(135)],
        vec![Match::Icmpv6(136)],
        vec![],
    ];
    let verdicts = [Verdict::Accept, Verdict::Drop, Verdict::Reject];
    let rules = matches.iter().flat_map(|matches| verdicts.map(|verdict| Rule { matches: matches.clone(), verdict, comment: None }));
    let tagged = Rule { matches: vec![], verdict: Verdict::Accept, comment: Some("netns ns-1".into()) };
    let nat = |hook, priority, verdict| Chain {
        name: format!("nat_{hook}"),
        kind: Kind::Nat,
        hook,
        priority,
        policy: Policy::Accept,
        rules: vec![Rule { matches: vec![Match::Protocol(Protocol::Tcp)], verdict, comment: None }],
    };
    let filter = Chain {
        name: "filter".into(),
        kind: Kind::Filter,
        hook: Hook::Forward,
        priority: FILTER,
        policy: Policy::Drop,
        rules: rules.chain([tagged]).collect(),
    };
    let early =
        |hook, priority| Chain { name: format!("early_{hook}"), kind: Kind::Filter, hook, priority, policy: Policy::Accept, rules: vec![] };
    agree(&Ruleset {
        tables: vec![Table {
            family: Family::Inet,
            name: "all".into(),
            comment: Some("net.ipv4.ip_forward=0".into()),
            chains: vec![
                early(Hook::Prerouting, NAT_DST - 10),
                early(Hook::Forward, FILTER - 10),
                early(Hook::Input, FILTER + 11),
                filter,
                Chain { rules: vec![Rule { matches: vec![], verdict: Verdict::NoTrack, comment: None }], ..early(Hook::Output, RAW) },
                nat(Hook::Output, NAT_DST, Verdict::Redirect(61443)),
                nat(Hook::Postrouting, 100, Verdict::Masquerade),
            ],
        }],
    });
}

#[test]
fn loading_again_replaces() {
    let redirect = |dns| {
        Ruleset::redirect(&Redirect { table: "sandbox".into(), listener: 61443, ports: None, networks: Vec::new(), barred: None, dns })
    };
    let both = listed(|| {
        redirect(61054).load().unwrap();
        redirect(61053).load().unwrap();
    });
    if let Some(listed) = both {
        assert_eq!(listed, redirect(61053).to_string());
    }
}

#[test]
fn creating_replaces_nothing() {
    let redirect = |dns| {
        Ruleset::redirect(&Redirect { table: "sandbox".into(), listener: 61443, ports: None, dns, networks: Vec::new(), barred: None })
    };
    let first = listed(|| {
        redirect(61054).create().unwrap();
        assert_eq!(redirect(61053).create().unwrap_err().source, nix::errno::Errno::EEXIST);
    });
    if let Some(listed) = first {
        assert_eq!(listed, redirect(61054).to_string());
    }
}

#[test]
fn a_refused_rule_is_named_and_nothing_is_loaded() {
    let mut ruleset = Ruleset::redirect(&Redirect {
        table: "sandbox".into(),
        listener: 61443,
        ports: None,
        networks: Vec::new(),
        barred: None,
        dns: 61053,
    });
    let chain = &mut ruleset.tables[0].chains[1];
    chain.rules.push(Rule { matches: vec![], verdict: Verdict::Masquerade, comment: None });
    let nothing = listed(|| {
        let error = ruleset.load().unwrap_err().to_string();
        assert!(error.contains("chain refuse: masquerade"), "{error}");
    });
    assert!(nothing.is_none_or(|listed| listed.is_empty()));
}
