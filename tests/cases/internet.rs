//! The test internet itself, without the command: what the other cases rely on.

use crate::{
    Case,
    support::world::{PLACEHOLDER, World, succeeded},
};

pub const CASES: &[Case] = &[
    ("serves_http1_and_http2_on_both_families", serves_http1_and_http2_on_both_families),
    ("shows_bad_certificates", shows_bad_certificates),
    ("echoes_tcp_and_udp_and_speaks_first", echoes_tcp_and_udp_and_speaks_first),
    ("answers_names", answers_names),
    ("switches_protocols", switches_protocols),
];

fn serves_http1_and_http2_on_both_families(world: &World) {
    for (options, version) in
        [("--http1.1 -4", "HTTP/1.1"), ("--http1.1 -6", "HTTP/1.1"), ("--http2 -4", "HTTP/2.0"), ("--http2 -6", "HTTP/2.0")]
    {
        succeeded(&world.outside(&[
            "sh",
            "-c",
            &format!("exec curl -fsS {options} -H \"x-key: $OPENAI_API_KEY\" -d body https://api.openai.com/v1"),
        ]));
        let [request] = &world.internet.take_requests()[..] else { panic!("one request expected") };
        let seen =
            (request.sni.as_str(), request.authority.as_str(), request.version.as_str(), request.method.as_str(), request.path.as_str());
        assert_eq!(seen, ("api.openai.com", "api.openai.com", version, "POST", "/v1"));
        assert_eq!((request.header("x-key"), request.body.as_slice()), (Some(PLACEHOLDER), &b"body"[..]));
    }
}

fn shows_bad_certificates(world: &World) {
    for (host, word) in
        [("expired", "expired"), ("wronghost", "no alternative certificate subject name"), ("unknown", "issuer certificate")]
    {
        let output = world.outside(&["curl", "-fsS", &format!("https://{host}.acme.test/")]);
        assert_eq!(output.status.code(), Some(60), "{host}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word), "{host}: {said}");
    }
}

fn echoes_tcp_and_udp_and_speaks_first(world: &World) {
    for host in ["203.0.113.12", "2001:db8:113::12"] {
        assert_eq!(succeeded(&world.outside(&["python3", "odd.py", "udp", host, "7"])), "ping\n");
        assert_eq!(succeeded(&world.outside(&["python3", "odd.py", "banner", host, "2525"])), "220 raw.test ready\n");
        assert_eq!(succeeded(&world.outside(&["python3", "odd.py", "tcp", host, "7"])).trim(), super::relay::ECHOED);
    }
}

fn answers_names(world: &World) {
    let ask = |transport, name, kind| succeeded(&world.outside(&["python3", "ask_dns.py", "203.0.113.53", transport, name, kind]));
    assert!(ask("udp", "api.openai.com", "1").starts_with("rcode=0 tc=0 answers=1\n"));
    assert!(ask("tcp", "api.openai.com", "28").starts_with("rcode=0 tc=0 answers=1\n"));
    assert!(ask("udp", "nothing.test", "1").starts_with("rcode=3 tc=0 answers=0\n"));
    assert!(ask("udp", "big.test", "16").starts_with("rcode=0 tc=1 answers=0\n"));
    assert!(ask("tcp", "big.test", "16").starts_with("rcode=0 tc=0 answers=20\n"));
    let service = ask("udp", "api.openai.com", "65");
    assert!(service.contains(super::names::H3) && service.contains(super::names::ECH), "{service}");
    assert!(succeeded(&world.outside(&["getent", "ahostsv4", "svc"])).contains("203.0.113.11"));
}

fn switches_protocols(world: &World) {
    let said = succeeded(&world.outside(&["python3", "odd.py", "upgrade", "other.test"]));
    assert_eq!(said, "HTTP/1.1 101 Switching Protocols hello\n");
}
