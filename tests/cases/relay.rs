//! What no provider claims passes unchanged, or is refused at once where the uplink cannot carry it.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{Mode, World, succeeded},
    },
};

/// SHA-256 of the mebibyte that `odd.py tcp` sends and gets back.
pub const ECHOED: &str = "fbbab289f7f94b25736c58be46a994c441fd02552cc6022352e3d86d2fab7c83";

pub const CASES: &[Case] = &[
    ("unmatched_host_shows_its_own_certificate", unmatched_host_shows_its_own_certificate),
    ("pinned_client_works_with_an_unmatched_host", pinned_client_works_with_an_unmatched_host),
    ("raw_tcp_is_echoed", raw_tcp_is_echoed),
    ("server_may_speak_first", server_may_speak_first),
    ("either_side_may_end_first", either_side_may_end_first),
    ("udp_passes_or_is_rejected_at_once", udp_passes_or_is_rejected_at_once),
    ("quic_is_refused", quic_is_refused),
    ("loopback_stays_inside", loopback_stays_inside),
];

fn unmatched_host_shows_its_own_certificate(world: &World) {
    let own = world.outside(&["python3", "odd.py", "fingerprint", "other.test"]);
    assert_eq!(succeeded(&world.inside(&["python3", "odd.py", "fingerprint", "other.test"])), succeeded(&own));
    let claimed = ["python3", "odd.py", "fingerprint", "api.openai.com"];
    assert_ne!(succeeded(&world.inside(&claimed)), succeeded(&world.outside(&claimed)), "a claimed host is opened");
}

fn pinned_client_works_with_an_unmatched_host(world: &World) {
    let root = world.path("root.pem");
    // Without an empty directory of certificates, Debian's curl trusts the system's besides the file.
    let client =
        |url| ["curl", "-fsS", "--capath", "/var/empty", "--cacert", root.to_str().unwrap(), "-H", "authorization: Bearer mine", url];
    succeeded(&world.inside(&client("https://other.test/")));
    assert_eq!(world.internet.take_requests()[0].header("authorization"), Some("Bearer mine"));
    assert_eq!(world.inside(&client("https://api.openai.com/")).status.code(), Some(60), "a pinned client rejects the run's certificate");
    assert!(world.internet.take_requests().is_empty());
}

fn raw_tcp_is_echoed(world: &World) {
    for host in ["203.0.113.12", "2001:db8:113::12"] {
        for port in ["7", "8443"] {
            assert_eq!(succeeded(&world.inside(&["python3", "odd.py", "tcp", host, port])).trim(), ECHOED, "{host} {port}");
        }
    }
}

fn server_may_speak_first(world: &World) {
    for host in ["203.0.113.12", "2001:db8:113::12"] {
        assert_eq!(succeeded(&world.inside(&["python3", "odd.py", "banner", host, "2525"])), "220 raw.test ready\n");
    }
}

/// The server has said all it will and still hears all that the client says; `odd.py tcp` is the other way round.
fn either_side_may_end_first(world: &World) {
    let server = "import hashlib, socket
s = socket.create_server(('203.0.113.14', 9000)); print('ready', flush=True)
while True:
    c = s.accept()[0]; c.sendall(b'all I say'); c.shutdown(socket.SHUT_WR)
    print('heard', hashlib.sha256(b''.join(iter(lambda: c.recv(65536), b''))).hexdigest(), flush=True); c.close()";
    let client = "import socket
c = socket.create_connection(('203.0.113.14', 9000), timeout=20)
print(b''.join(iter(lambda: c.recv(100), b'')).decode(), flush=True)
c.sendall(bytes(range(256)) * 4096)";
    let origin = Origin::start(world, &mut world.command(&["/usr/bin/python3", "-u", "-c", server]), "ready");
    for (way, output) in world.every_way(&["python3", "-c", client]) {
        assert_eq!(succeeded(&output), "all I say\n", "{way}");
        assert_eq!(origin.said_until("heard"), [format!("heard {ECHOED}")], "{way}");
    }
}

fn udp_passes_or_is_rejected_at_once(world: &World) {
    let want = if world.mode == Mode::Sudo { "ping\n" } else { "EPERM\n" };
    for host in ["203.0.113.12", "2001:db8:113::12"] {
        assert_eq!(succeeded(&world.inside(&["python3", "odd.py", "udp", host, "7"])), want, "{host}");
    }
}

fn quic_is_refused(world: &World) {
    for host in ["203.0.113.10", "2001:db8:113::10"] {
        let said = succeeded(&world.inside(&["python3", "odd.py", "udp", host, "443"]));
        assert!(["EPERM\n", "ECONNREFUSED\n"].contains(&said.as_str()), "{host}: {said}");
        assert_eq!(succeeded(&world.outside(&["python3", "odd.py", "udp", host, "443"])), "ping\n");
    }
}

fn loopback_stays_inside(world: &World) {
    let script = "import socket\ns = socket.create_server(('127.0.0.1', 0))\nc = socket.create_connection(s.getsockname())\nc.sendall(b'x')\nprint(s.accept()[0].recv(1))";
    assert_eq!(succeeded(&world.inside(&["python3", "-c", script])), "b'x'\n");
}
