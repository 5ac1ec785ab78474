//! Links, addresses and routes on the real kernel, each test in a network namespace of its own.
// Helpers of tests may panic as the tests themselves do.
#![allow(clippy::unwrap_used)]

use std::{
    fs::File,
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    thread,
};

use netns::link::{self, IpNet};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a new network namespace, on a thread that takes the namespace with it; not at all where this user may have none.
fn alone(test: impl FnOnce() + Send + 'static) {
    let inside = move || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => test(),
        Err(error) if std::env::var_os("NETNS_REQUIRE").is_some() => panic!("unshare network namespace: {error}"),
        Err(error) => eprintln!("skipped: unshare network namespace: {error}"),
    };
    thread::spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// A second, empty namespace.
fn other() -> OwnedFd {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap().into()
    };
    thread::spawn(make).join().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn only_an_address_with_a_prefix_of_its_family_is_a_network() {
    for (text, printed) in [("203.0.113.7/24", "203.0.113.7/24"), ("203.0.113.7", "203.0.113.7/32"), ("2001:DB8::7/64", "2001:db8::7/64")] {
        assert_eq!(net(text).to_string(), printed);
    }
    for text in ["", "/24", "203.0.113.7/", "203.0.113.7/33", "203.0.113/24", "2001:db8::/129", "2001:db8::/-1", "203.0.113.7/24/1"] {
        let error = text.parse::<IpNet>().unwrap_err().to_string();
        assert_eq!(error, format!("not an address with a prefix length: {text}"));
    }
}

#[test]
fn networks_overlap_where_they_share_an_address() {
    assert_eq!(net("203.0.113.7/24").network(), net("203.0.113.0/24"));
    assert_eq!(net("203.0.113.7/0").network(), IpNet::any(false));
    assert_eq!(net("2001:db8::7/0").network(), IpNet::any(true));
    assert!(net("203.0.113.0/24").contains(ip("203.0.113.255")));
    assert!(!net("203.0.113.0/24").contains(ip("203.0.114.0")));
    for (one, two, overlap) in [
        ("10.0.0.0/8", "10.9.8.4/30", true),
        ("10.9.8.4/30", "10.9.8.8/30", false),
        ("0.0.0.0/0", "10.9.8.4/30", true),
        ("0.0.0.0/0", "fd00::/8", false),
        ("fd00::/8", "fd12:3456::/126", true),
    ] {
        assert_eq!(net(one).overlaps(&net(two)), overlap, "{one} {two}");
        assert_eq!(net(two).overlaps(&net(one)), overlap, "{two} {one}");
    }
}

#[test]
fn every_address_is_reachable_through_lo_as_soon_as_it_is_there() {
    alone(|| {
        link::up("lo").unwrap();
        // Many, since what is not there at once is there soon.
        let v6 = (1..=50).map(|n| format!("2001:db8:113::{n}/64"));
        for address in v6.chain(["203.0.113.7/24".to_owned()]) {
            link::add_address("lo", net(&address)).unwrap();
            let addr = net(&address).addr;
            let listener = TcpListener::bind((addr, 0)).unwrap();
            assert_eq!(TcpStream::connect(listener.local_addr().unwrap()).unwrap().peer_addr().unwrap().ip(), addr);
        }
        let addresses = link::addresses().unwrap();
        for known in ["127.0.0.1", "203.0.113.7", "::1", "2001:db8:113::50"] {
            assert!(addresses.contains(&ip(known)), "{known} of {addresses:?}");
        }
    });
}

#[test]
fn a_default_route_without_a_gateway_is_of_both_families() {
    alone(|| {
        link::up("lo").unwrap();
        assert_eq!([false, true].map(|v6| link::has_default_route(v6).unwrap()), [false, false]);
        link::add_default_route("lo", None).unwrap();
        assert_eq!([false, true].map(|v6| link::has_default_route(v6).unwrap()), [true, true]);
        let routes = link::routes().unwrap();
        assert!(routes.contains(&IpNet::any(false)) && routes.contains(&IpNet::any(true)), "{routes:?}");
    });
}

#[test]
fn a_default_route_with_a_gateway_is_of_its_family() {
    alone(|| {
        let theirs = other();
        link::add_veth("here", "there", theirs.as_fd()).unwrap();
        link::up("here").unwrap();
        link::add_address("here", net("203.0.113.1/30")).unwrap();
        link::add_default_route("here", Some(ip("203.0.113.2"))).unwrap();
        assert_eq!([false, true].map(|v6| link::has_default_route(v6).unwrap()), [true, false]);
        assert!(link::routes().unwrap().contains(&net("203.0.113.0/30")));
    });
}

#[test]
fn the_peer_of_a_veth_is_in_the_other_namespace_and_goes_with_it() {
    alone(|| {
        let (mine, theirs) = (File::open("/proc/thread-self/ns/net").unwrap(), other());
        link::add_veth("here", "there", theirs.as_fd()).unwrap();
        assert_eq!(link::names().unwrap(), ["lo", "here"]);
        nix::sched::setns(&theirs, CloneFlags::CLONE_NEWNET).unwrap();
        assert_eq!(link::names().unwrap(), ["lo", "there"]);
        nix::sched::setns(&mine, CloneFlags::CLONE_NEWNET).unwrap();
        link::remove("here").unwrap();
        assert_eq!(link::names().unwrap(), ["lo"]);
        nix::sched::setns(&theirs, CloneFlags::CLONE_NEWNET).unwrap();
        assert_eq!(link::names().unwrap(), ["lo"]);
    });
}

#[test]
fn what_is_plugged_into_a_bridge_is_reached_through_it() {
    alone(|| {
        let (mine, theirs) = (File::open("/proc/thread-self/ns/net").unwrap(), other());
        link::add_bridge("switch").unwrap();
        link::add_veth("port", "there", theirs.as_fd()).unwrap();
        link::set_bridge("port", "switch").unwrap();
        link::add_address("switch", net("203.0.113.1/24")).unwrap();
        link::up("switch").unwrap();
        link::up("port").unwrap();
        nix::sched::setns(&theirs, CloneFlags::CLONE_NEWNET).unwrap();
        link::add_address("there", net("203.0.113.2/24")).unwrap();
        link::up("there").unwrap();
        let listener = TcpListener::bind("203.0.113.2:0").unwrap();
        nix::sched::setns(&mine, CloneFlags::CLONE_NEWNET).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();

        let error = link::set_bridge("port", "lo").unwrap_err().to_string();
        assert!(error.starts_with("plug port into lo"), "{error}");
    });
}

#[test]
fn errors_name_the_object() {
    alone(|| {
        link::up("lo").unwrap();
        link::add_address("lo", net("203.0.113.7/24")).unwrap();
        let again = link::add_address("lo", net("203.0.113.7/24")).unwrap_err();
        assert!(again.action.starts_with("add address 203.0.113.7/24 to lo"), "{again}");
        assert_eq!(again.source, nix::errno::Errno::EEXIST);
        let nowhere = link::add_default_route("lo", Some(ip("198.51.100.1"))).unwrap_err();
        assert!(nowhere.action.starts_with("add route to 0.0.0.0/0 via 198.51.100.1 dev lo"), "{nowhere}");
        // The kernel's own words come with the error.
        assert!(nowhere.action.contains("(Nexthop has invalid gateway)"), "{nowhere}");
        assert_eq!(link::up("absent").unwrap_err().to_string(), "set absent up: ENODEV: No such device");
        assert_eq!(link::remove("absent").unwrap_err().to_string(), "remove link absent: ENODEV: No such device");
    });
}
