//! What an origin may do: show a bad certificate, stream, switch protocols, echo a header.

use crate::{
    Case,
    support::{
        internet::pki::{EXPIRED, UNKNOWN_ISSUER, WRONG_HOST},
        origin::Origin,
        world::{ACME_KEY, OPENAI_KEY, World, show, succeeded},
    },
};
use std::{
    io::{BufRead, BufReader, Read},
    process::Command,
};

pub const CASES: &[Case] = &[
    ("bad_certificate_is_a_502_with_the_reason", bad_certificate_is_a_502_with_the_reason),
    ("unknown_upstream_root_is_a_502", unknown_upstream_root_is_a_502),
    ("foreign_host_header_is_a_421", foreign_host_header_is_a_421),
    ("origin_that_speaks_http1_only", origin_that_speaks_http1_only),
    ("events_leave_when_they_arrive", events_leave_when_they_arrive),
    ("websocket_is_injected_and_switched", websocket_is_injected_and_switched),
    ("large_body_arrives_whole", large_body_arrives_whole),
    ("echoed_key_is_scrubbed", echoed_key_is_scrubbed),
    ("a_silent_server_is_the_clients_to_give_up", a_silent_server_is_the_clients_to_give_up),
];

/// Accepts, and says nothing.
const SILENT: &str = "import socket, sys, time
s = socket.create_server((sys.argv[1], int(sys.argv[2]))); print('ready', flush=True)
while True: kept = globals().setdefault('kept', []); kept.append(s.accept())";

/// Status, headers and body as curl prints them.
fn curl(world: &World, url: &str) -> String {
    let output = world.inside(&["curl", "-sSi", url]);
    assert!(output.status.success(), "{}", show(&output));
    String::from_utf8_lossy(&output.stdout).to_lowercase() + &String::from_utf8_lossy(&output.stderr).to_lowercase()
}

fn bad_certificate_is_a_502_with_the_reason(world: &World) {
    for (host, word) in [(EXPIRED, "expired"), (WRONG_HOST, "wrong host"), (UNKNOWN_ISSUER, "unknown issuer")] {
        let said = curl(world, &format!("https://{host}/v1"));
        assert!(said.lines().next().is_some_and(|line| line.contains(" 502")), "{host}: {said}");
        assert!(said.contains("x-authsome-error:") && said.contains(word), "{host}: {said}");
    }
    assert!(world.internet.take_requests().is_empty(), "no request may leave");
}

/// The system's roots do not know the test internet's.
fn unknown_upstream_root_is_a_502(world: &World) {
    let mut command = world.command(&["timeout", "--foreground", "60", world.path("authsome").to_str().unwrap()]);
    command.args(["run", "--transparent", "--", "curl", "-sSi", "https://api.openai.com/"]);
    let said = succeeded(&crate::support::world::finish(&mut world.start_as_mode(command)));
    assert!(said.lines().next().is_some_and(|line| line.contains(" 502")), "{said}");
    assert!(world.internet.take_requests().is_empty(), "no request may leave");
}

fn foreign_host_header_is_a_421(world: &World) {
    let client = |host| ["python3", "odd.py", "host_header", "api.openai.com", host];
    assert!(succeeded(&world.inside(&client("other.test"))).starts_with("HTTP/1.1 421"));
    assert!(succeeded(&world.inside(&client("api.acme.test"))).starts_with("HTTP/1.1 421"));
    assert!(world.internet.take_requests().is_empty(), "no request may leave");
    assert!(succeeded(&world.inside(&client("api.openai.com"))).starts_with("HTTP/1.1 200"));
}

fn origin_that_speaks_http1_only(world: &World) {
    succeeded(&world.inside(&["curl", "-fsS", "--http2", "https://h1.acme.test/"]));
    let [request] = &world.internet.take_requests()[..] else { panic!("one request expected") };
    assert_eq!((request.version.as_str(), request.header("x-api-key")), ("HTTP/1.1", Some(ACME_KEY)));
}

fn events_leave_when_they_arrive(world: &World) {
    for version in ["--http1.1", "--http2"] {
        events_come_one_by_one(world, &mut world.authsome(&[], &["curl", "-fsSN", version, "https://api.openai.com/events"]));
    }
}

/// To `client`, which prints them. The origin keeps the second event until the first has been read here.
pub fn events_come_one_by_one(world: &World, client: &mut Command) {
    let mut child = client.spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    events.read_line(&mut first).unwrap();
    world.internet.send_event();
    let mut rest = String::new();
    events.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{client:?}: {}", show(&output));
    assert_eq!((first.as_str(), rest.as_str()), ("data: first\n", "\ndata: last\n\n"), "{client:?}");
}

fn websocket_is_injected_and_switched(world: &World) {
    let said = succeeded(&world.inside(&["python3", "odd.py", "upgrade", "api.openai.com"]));
    assert_eq!(said, "HTTP/1.1 101 Switching Protocols hello\n");
    assert_eq!(world.internet.take_requests()[0].header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));
}

fn large_body_arrives_whole(world: &World) {
    let client = "head -c 8000000 /dev/zero | curl -fsS -T - https://api.openai.com/upload";
    assert_eq!(succeeded(&world.inside(&["sh", "-c", client])), "8000000 bytes for api.openai.com\n");
}

fn echoed_key_is_scrubbed(world: &World) {
    let said = curl(world, "https://api.openai.com/headers");
    assert!(said.contains("authorization: bearer ") && !said.contains(&OPENAI_KEY.to_lowercase()), "{said}");
    let [request] = &world.internet.take_requests()[..] else { panic!("one request expected") };
    assert!(request.header("authorization").is_some_and(|value| value.contains(OPENAI_KEY)), "the origin did receive and echo it");
}

/// Before the TLS handshake, or with a request unanswered: curl's own limit ends it (CURLE_OPERATION_TIMEDOUT), and no answer of ours. A server that
/// gives up says so itself.
fn a_silent_server_is_the_clients_to_give_up(world: &World) {
    let silent =
        |host: &str, port: &str| Origin::start(world, &mut world.command(&["/usr/bin/python3", "-u", "-c", SILENT, host, port]), "ready");
    let ask = |options: &str| format!("curl -sS {options} https://programs.acme.test/ >answer; echo $? $(wc -c <answer)");
    {
        let _mute = silent("203.0.113.14", "443");
        for (way, output) in world.every_way(&["sh", "-c", &ask("-4 -m 1")]) {
            assert_eq!(succeeded(&output), "28 0\n", "{way}");
        }
    }
    let _behind = silent("127.0.0.1", "8001");
    let patience = "proxy_pass http://127.0.0.1:8001; proxy_read_timeout";
    let _front = Origin::nginx(world, &format!("location / {{ {patience} 1h; }} location /timeout {{ {patience} 1s; }}"));
    for version in ["--http1.1", "--http2"] {
        let gateway = format!("curl -sS {version} -o /dev/null -w '%{{http_code}}\\n' https://programs.acme.test/timeout");
        let client = format!("{}; {}; {gateway}", ask(&format!("{version} -m 1")), ask(&format!("{version} -m 1 -d some")));
        for (way, output) in world.every_way(&["sh", "-c", &client]) {
            assert_eq!(succeeded(&output), "28 0\n28 0\n504\n", "{way} {version}");
        }
    }
}
