//! The host, the internet and the inner side are three namespaces of each test. Needs root; NETNS_REQUIRE=1 makes a refusal a failure.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use netns::{
    NetNs,
    link::{self, IpNet},
    uplink::{self, Inner, Uplink},
};

const V4: &str = "203.0.113.7";
const V6: &str = "2001:db8:113::7";
const HOST: [&str; 2] = ["203.0.113.1", "2001:db8:113::1"];
const PORT: u16 = 7;
/// A packet that is dropped is never answered; this long is waited for that, once others were answered: links take a second to come up.
const DROPPED: Duration = Duration::from_millis(400);
const ANSWERED: Duration = Duration::from_secs(10);

/// A host with one network, on which the internet is.
struct World {
    host: NetNs,
    internet: NetNs,
}

/// `None` where namespaces are forbidden.
fn world() -> Option<World> {
    let (host, internet) = match NetNs::new().and_then(|host| Ok((host, NetNs::new()?))) {
        Ok(made) => made,
        Err(error) if std::env::var_os("NETNS_REQUIRE").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let set_up = |addresses: [&str; 2]| {
        for (address, prefix) in addresses.into_iter().zip([24, 64]) {
            link::add_address("wan", IpNet { addr: address.parse().unwrap(), prefix }).unwrap();
        }
        link::up("wan").unwrap();
        listen();
    };
    host.run(|| {
        link::add_veth("wan", "wan", internet.as_fd()).unwrap();
        set_up(HOST);
    })
    .unwrap();
    internet.run(|| set_up([V4, V6])).unwrap();
    Some(World { host, internet })
}

/// TCP and UDP services that answer with the address they were asked from.
fn listen() {
    let tcp = TcpListener::bind(("::", PORT)).unwrap();
    thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
    let udp = UdpSocket::bind(("::", PORT)).unwrap();
    thread::spawn(move || {
        while let Ok((_, peer)) = udp.recv_from(&mut [0; 16]) {
            let _ = udp.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
        }
    });
}

/// What the TCP service at `to` says, in the calling thread's namespace.
fn tcp(to: IpAddr, timeout: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), timeout).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    Some(text)
}

/// At once, by an answer: a client that hears nothing would try for minutes.
fn assert_refused(to: IpAddr) {
    let error = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), ANSWERED).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::TimedOut, "TCP to {to}");
}

fn udp(to: IpAddr, timeout: Duration) -> Option<String> {
    let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).unwrap();
    socket.set_read_timeout(Some(timeout)).unwrap();
    socket.send_to(b"?", (to, PORT)).ok()?;
    let mut answer = [0; 64];
    let (length, _) = socket.recv_from(&mut answer).ok()?;
    Some(String::from_utf8(answer[..length].to_vec()).unwrap())
}

/// An inner namespace with its way out.
fn connect(world: &World, denied: &[IpNet]) -> (NetNs, Uplink) {
    let inner = NetNs::new().unwrap();
    let uplink = world.host.run(|| Uplink::create(inner.as_fd(), denied).unwrap()).unwrap();
    let end: Inner = uplink.inner().to_string().parse().unwrap();
    assert_eq!(&end, uplink.inner());
    inner.run(|| end.configure().unwrap()).unwrap();
    (inner, uplink)
}

/// The internet sees the host's own addresses.
fn passes(inner: &NetNs) {
    inner
        .run(|| {
            for (to, host) in [V4, V6].into_iter().zip(HOST) {
                let to = to.parse().unwrap();
                assert_eq!(tcp(to, ANSWERED).as_deref(), Some(host), "TCP to {to}");
                assert_eq!(udp(to, ANSWERED).as_deref(), Some(host), "UDP to {to}");
            }
        })
        .unwrap();
}

/// Of the host, whatever may be changed there.
#[derive(Debug, PartialEq, Eq)]
struct State {
    ruleset: String,
    links: Vec<String>,
    sysctls: BTreeMap<String, String>,
}

fn state(world: &World) -> State {
    world
        .host
        .run(|| {
            let mut links = link::names().unwrap();
            links.sort();
            State { ruleset: run("nft", &["--stateless", "list", "ruleset"]), links, sysctls: sysctls() }
        })
        .unwrap()
}

fn unchanged(world: &World, before: &State) {
    let now = state(world);
    let settings: Vec<_> = before.sysctls.iter().filter(|(path, value)| now.sysctls.get(*path) != Some(value)).collect();
    assert!(settings.is_empty(), "{settings:?} before");
    assert_eq!(now.ruleset, before.ruleset);
    assert_eq!(now, *before);
}

/// Every setting of every interface, and the main switch.
fn sysctls() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut read = |path: String| fs::read_to_string(&path).ok().and_then(|value| found.insert(path, value));
    read("/proc/sys/net/ipv4/ip_forward".into());
    for directory in ["/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"] {
        for interface in fs::read_dir(directory).unwrap().flatten() {
            for setting in fs::read_dir(interface.path()).unwrap().flatten() {
                read(setting.path().display().to_string());
            }
        }
    }
    found
}

fn set(path: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// As if the process was killed: nothing is undone here, and the kernel takes the inner namespace away.
fn kill(world: &World, inner: NetNs, uplink: Uplink) {
    let name = uplink.inner().to_string().split(' ').next().unwrap().to_owned();
    std::mem::forget(uplink);
    drop(inner);
    let since = Instant::now();
    while world.host.run(|| link::names().unwrap().contains(&name)).unwrap() {
        assert!(since.elapsed() < ANSWERED, "{name} is still there");
        thread::yield_now();
    }
}

#[test]
fn traffic_leaves_by_the_address_of_the_host() {
    let Some(world) = world() else { return };
    let (inner, _uplink) = connect(&world, &[]);
    passes(&inner);
    inner
        .run(|| {
            run("ping", &["-n", "-c1", "-W10", V4]);
            run("ping", &["-n", "-c1", "-W10", V6]);
        })
        .unwrap();
}

/// An address that becomes usable later is a change of the network to who watches it.
#[test]
fn no_address_is_still_being_looked_for() {
    let Some(world) = world() else { return };
    let (inner, uplink) = connect(&world, &[]);
    let shown = |what: &[&str]| inner.run(|| run("ip", &[&["-6", "-o", "address", "show", "scope", "link"], what].concat())).unwrap();
    assert!(shown(&[]).contains("fe80:"), "there is one to look at");
    assert_eq!(shown(&["tentative"]), "");
    world.host.run(|| uplink.remove().unwrap()).unwrap();
}

#[test]
fn no_service_of_the_host_is_reached() {
    let Some(world) = world() else { return };
    let (inner, _uplink) = connect(&world, &[]);
    passes(&inner);
    let addresses = world.host.run(|| link::addresses().unwrap()).unwrap();
    let own: Vec<_> = addresses.iter().filter(|addr| !addr.is_loopback() && !link_local(addr)).collect();
    assert_eq!(own.len(), 4, "{own:?}");
    // The service is there, and for a neighbour it answers.
    world.internet.run(|| assert_eq!(tcp(HOST[0].parse().unwrap(), ANSWERED).as_deref(), Some(V4))).unwrap();
    for addr in own {
        inner
            .run(|| {
                assert_refused(*addr);
                assert_eq!(udp(*addr, DROPPED), None, "UDP to {addr}");
            })
            .unwrap();
    }
}

fn link_local(addr: &IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

#[test]
fn a_port_that_the_host_publishes_is_not_reached() {
    let Some(world) = world() else { return };
    let published = format!(
        "add table ip published; add chain ip published in {{ type nat hook prerouting priority dstnat; }}; \
         add rule ip published in ip daddr {} tcp dport {PORT} dnat to {V4}",
        HOST[0]
    );
    world.host.run(|| run("nft", &[&published])).unwrap();
    let (inner, _uplink) = connect(&world, &[]);
    passes(&inner);
    inner.run(|| assert_refused(HOST[0].parse().unwrap())).unwrap();
}

#[test]
fn a_denied_network_is_not_reached() {
    let Some(world) = world() else { return };
    let denied = ["203.0.113.0/29", "2001:db8:113::7"].map(|net| net.parse().unwrap());
    world
        .internet
        .run(|| ["203.0.113.9/24", "2001:db8:113::9/64"].map(|net| link::add_address("wan", net.parse().unwrap()).unwrap()))
        .unwrap();
    let (inner, _uplink) = connect(&world, &denied);
    inner
        .run(|| {
            assert_eq!(tcp("203.0.113.9".parse().unwrap(), ANSWERED).as_deref(), Some(HOST[0]));
            assert_eq!(tcp("2001:db8:113::9".parse().unwrap(), ANSWERED).as_deref(), Some(HOST[1]));
            for to in [V4, V6] {
                assert_refused(to.parse().unwrap());
                assert_eq!(udp(to.parse().unwrap(), DROPPED), None, "{to}");
            }
        })
        .unwrap();
}

#[test]
fn nobody_outside_reaches_in() {
    let Some(world) = world() else { return };
    let (inner, uplink) = connect(&world, &[]);
    passes(&inner);
    inner.run(listen).unwrap();
    let text = uplink.inner().to_string();
    let inside: IpNet = text.split(' ').nth(1).unwrap().parse().unwrap();
    world
        .internet
        .run(|| {
            link::add_route("wan", inside.network(), Some(HOST[0].parse().unwrap())).unwrap();
            assert_eq!(tcp(inside.addr, DROPPED), None);
        })
        .unwrap();
}

#[test]
fn chains_that_drop_what_is_forwarded_let_it_pass() {
    let Some(world) = world() else { return };
    world
        .host
        .run(|| {
            run("iptables", &["-P", "FORWARD", "DROP"]);
            run("ip6tables", &["-P", "FORWARD", "DROP"]);
            let firewall = "add table inet firewall; add chain inet firewall forward { type filter hook forward priority 10; }; \
                            add chain inet firewall zone; add rule inet firewall forward jump zone; add rule inet firewall zone reject";
            run("nft", &[firewall]);
        })
        .unwrap();
    let before = state(&world);
    let (inner, uplink) = connect(&world, &[]);
    passes(&inner);
    // Its owner can still read it.
    world.host.run(|| assert!(run("iptables", &["-S", "FORWARD"]).contains("-j ACCEPT"))).unwrap();
    world.host.run(|| uplink.remove().unwrap()).unwrap();
    unchanged(&world, &before);
}

#[test]
fn rules_go_where_docker_leaves_room_for_them() {
    let Some(world) = world() else { return };
    world
        .host
        .run(|| {
            run("iptables", &["-P", "FORWARD", "DROP"]);
            run("iptables", &["-N", "DOCKER-USER"]);
            run("iptables", &["-A", "FORWARD", "-j", "DOCKER-USER"]);
        })
        .unwrap();
    let before = state(&world);
    let (inner, uplink) = connect(&world, &[]);
    passes(&inner);
    world.host.run(|| assert_eq!(run("iptables", &["-S", "DOCKER-USER"]).matches("ACCEPT").count(), 2)).unwrap();
    kill(&world, inner, uplink);
    world.host.run(|| uplink::sweep().unwrap()).unwrap();
    unchanged(&world, &before);
}

#[test]
fn removal_leaves_the_host_as_it_was() {
    let Some(world) = world() else { return };
    // Settings that the kernel changes along with the switch.
    world
        .host
        .run(|| {
            set("ipv4/conf/all/accept_redirects", "0");
            set("ipv4/conf/wan/forwarding", "1");
            set("ipv6/conf/wan/forwarding", "1");
            set("ipv6/conf/lo/accept_ra", "1");
            set("ipv6/conf/wan/accept_ra", "1");
        })
        .unwrap();
    let before = state(&world);
    let (inner, uplink) = connect(&world, &[]);
    world.host.run(|| assert_eq!(fs::read_to_string("/proc/sys/net/ipv6/conf/wan/accept_ra").unwrap(), "2\n")).unwrap();
    passes(&inner);
    world.host.run(|| uplink.remove().unwrap()).unwrap();
    unchanged(&world, &before);
}

#[test]
fn a_long_journal_is_kept_whole() {
    let Some(world) = world() else { return };
    world
        .host
        .run(|| {
            for number in 0..20 {
                let name = format!("lan-interface{number}");
                link::add_bridge(&name).unwrap();
                set(&format!("ipv6/conf/{name}/accept_ra"), "1");
            }
        })
        .unwrap();
    let before = state(&world);
    let (inner, uplink) = connect(&world, &[]);
    assert_ne!(state(&world).sysctls, before.sysctls);
    kill(&world, inner, uplink);
    world.host.run(|| uplink::sweep().unwrap()).unwrap();
    unchanged(&world, &before);
}

#[test]
fn what_the_dead_left_is_swept_and_the_living_are_not() {
    let Some(world) = world() else { return };
    world.host.run(|| run("nft", &["add table inet ns-abcdef; add table inet ns-elsewhere"])).unwrap();
    let before = state(&world);
    let (dead, lost) = connect(&world, &[]);
    let (inner, uplink) = connect(&world, &[]);
    kill(&world, dead, lost);
    let (late, third) = connect(&world, &[]);
    world.host.run(|| uplink::sweep().unwrap()).unwrap();
    passes(&inner);
    passes(&late);
    world.host.run(|| uplink.remove().unwrap()).unwrap();
    passes(&late);
    kill(&world, late, third);
    world.host.run(|| uplink::sweep().unwrap()).unwrap();
    unchanged(&world, &before);
}

#[test]
fn two_are_removed_in_either_order() {
    for first_goes_first in [true, false] {
        let Some(world) = world() else { return };
        let before = state(&world);
        let (first, second) = (connect(&world, &[]), connect(&world, &[]));
        let (gone, left) = if first_goes_first { (first, second) } else { (second, first) };
        world.host.run(|| gone.1.remove().unwrap()).unwrap();
        passes(&left.0);
        world.host.run(|| drop(left.1)).unwrap();
        unchanged(&world, &before);
    }
}

#[test]
fn what_was_forwarded_before_still_is() {
    let Some(world) = world() else { return };
    world
        .host
        .run(|| {
            set("ipv4/ip_forward", "1");
            set("ipv6/conf/all/forwarding", "1");
        })
        .unwrap();
    let before = state(&world);
    let (inner, uplink) = connect(&world, &[]);
    passes(&inner);
    world.host.run(|| uplink.remove().unwrap()).unwrap();
    unchanged(&world, &before);
}

#[test]
fn a_failed_attempt_leaves_nothing() {
    let Some(world) = world() else { return };
    let before = state(&world);
    let occupied = NetNs::new().unwrap();
    // Every private network has a route.
    world
        .host
        .run(|| {
            for net in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] {
                link::add_route("wan", net.parse().unwrap(), None).unwrap();
            }
            let error = Uplink::create(occupied.as_fd(), &[]).unwrap_err();
            assert!(error.to_string().contains("private network"), "{error}");
        })
        .unwrap();
    unchanged(&world, &before);
}

/// Runs the case `name` in a copy of this program, in the calling thread's network namespace, as nobody with `capabilities` and no others.
fn as_nobody(capabilities: &str, name: &str) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("uplink");
    fs::copy("/proc/self/exe", &program).unwrap();
    let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}=-all{capabilities}"));
    let mut arguments = vec!["--reuid=65534", "--regid=65534", "--clear-groups"];
    arguments.extend(sets.iter().map(String::as_str));
    arguments.extend([program.to_str().unwrap(), "--exact", name, "--ignored"]);
    assert!(run("setpriv", &arguments).contains("1 passed"));
}

#[test]
#[ignore = "run by others, as nobody"]
fn sweep() {
    uplink::sweep().unwrap();
}

#[test]
fn sweeping_needs_no_more_than_one_capability_and_is_nothing_without() {
    let Some(world) = world() else { return };
    let before = state(&world);
    let (inner, uplink) = connect(&world, &[]);
    kill(&world, inner, uplink);
    let left = state(&world);
    world.host.run(|| as_nobody("", "sweep")).unwrap();
    unchanged(&world, &left);
    world.host.run(|| as_nobody(",+net_admin", "sweep")).unwrap();
    unchanged(&world, &before);
}

#[test]
fn the_text_of_an_inner_end_is_checked() {
    for wrong in ["", "ns-5ca1ab", "ns-5ca1ab 172.16.0.2 gateway", "ns-5ca1ab 172.16.0.2/33 172.16.0.1", "a 10.0.0.2/30 10.0.0.1 b"] {
        assert!(wrong.parse::<Inner>().is_err(), "{wrong:?}");
    }
}
