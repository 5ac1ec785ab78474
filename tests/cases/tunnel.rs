//! What clients do with the explicit proxy of the environment mode passes as it does without it: inside CONNECT, and as requests for the proxy.

use crate::{
    Case,
    cases::{relay::ECHOED, upstream::events_come_one_by_one},
    support::{
        origin::Origin,
        world::{ACME_KEY, OPENAI_KEY, PLACEHOLDER, World, finish, show, succeeded},
    },
};
use std::process::Output;

pub const CASES: &[Case] = &[
    ("websocket", websocket),
    ("events_leave_when_they_arrive", events_leave_when_they_arrive),
    ("clients_that_wait_are_told_to_continue", clients_that_wait_are_told_to_continue),
    ("http2_streams_share_a_tunnel", http2_streams_share_a_tunnel),
    ("tunnel_of_other_bytes_is_opaque", tunnel_of_other_bytes_is_opaque),
    ("server_may_speak_first", server_may_speak_first),
    ("tunnel_to_a_denied_host_is_refused", tunnel_to_a_denied_host_is_refused),
    ("method_and_path_decide_inside_a_tunnel", method_and_path_decide_inside_a_tunnel),
    ("requests_for_several_hosts_share_a_connection", requests_for_several_hosts_share_a_connection),
];

const URL: &str = "https://api.openai.com/v1/models";
/// curl waits longer than the test does for what has to come.
const WAITING: &str = "curl -sS --expect100-timeout 600";

fn inside(world: &World, options: &[&str], client: &str) -> Output {
    finish(&mut world.by_environment(options, &["sh", "-c", client]))
}

/// For wss:// aiohttp asks for a tunnel, for ws:// for the upgrade at once. What is not encrypted is never injected.
fn websocket(world: &World) {
    let origin = Origin::python(world, "ws_echo.py", &[]);
    for (scheme, key) in [("wss", ACME_KEY), ("ws", PLACEHOLDER)] {
        let client = format!("exec /usr/bin/python3 ws_aiohttp.py {scheme}://programs.acme.test/");
        assert_eq!(succeeded(&inside(world, &[], &client)), "grüße\nTrue\n4001\n", "{scheme}");
        let said = origin.said_until("closed");
        assert!(said[0].starts_with(&format!("key {key} ")) && said[0].contains("PerMessageDeflate"), "{scheme}: {said:?}");
        assert!(said[1].contains("4001") && said[1].ends_with("enough"), "{scheme}: {said:?}");
    }
}

fn events_leave_when_they_arrive(world: &World) {
    for (version, scheme) in [("--http1.1", "https"), ("--http2", "https"), ("--http1.1", "http")] {
        let client = ["curl", "-fsSN", version, &format!("{scheme}://api.openai.com/events")];
        events_come_one_by_one(world, &mut world.by_environment(&[], &client));
    }
}

fn clients_that_wait_are_told_to_continue(world: &World) {
    for scheme in ["https", "http"] {
        let client =
            format!("head -c 3000000 /dev/zero | {WAITING} -v --http1.1 -H 'expect: 100-continue' -T - {scheme}://api.openai.com/upload");
        let output = inside(world, &[], &client);
        assert_eq!(succeeded(&output), "3000000 bytes for api.openai.com\n");
        assert!(String::from_utf8_lossy(&output.stderr).contains("< HTTP/1.1 100 Continue"), "{}", show(&output));
    }
}

fn http2_streams_share_a_tunnel(world: &World) {
    let urls: String = (0..8).map(|n| format!(" {URL}/{n}")).collect();
    let output = inside(world, &[], &format!("curl -fsSv --parallel --http2{urls}"));
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.matches("CONNECT api.openai.com:443").count(), 1, "{said}");
    let requests = world.internet.take_requests();
    let key = format!("Bearer {OPENAI_KEY}");
    let injected = requests.iter().filter(|request| request.version == "HTTP/2.0" && request.header("authorization") == Some(&key));
    assert_eq!(injected.count(), 8, "{requests:?}");
}

/// socat's PROXY address.
fn tunnelled(target: &str) -> String {
    let (host, port) = target.rsplit_once(':').unwrap();
    format!("socat -t 30 - PROXY:127.0.0.1:{host}:{port},proxyport=${{HTTPS_PROXY##*:}}")
}

fn tunnel_of_other_bytes_is_opaque(world: &World) {
    for target in ["raw.test:7", "raw.test:8443", "203.0.113.12:7"] {
        let client = format!("/usr/bin/python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)' | {}", tunnelled(target));
        let said = succeeded(&inside(world, &[], &format!("{client} | sha256sum")));
        assert_eq!(said.trim_end_matches("  -\n"), ECHOED, "{target}");
    }
}

fn server_may_speak_first(world: &World) {
    let said = succeeded(&inside(world, &[], &tunnelled("raw.test:2525")));
    assert_eq!(said, "220 raw.test ready\r\n");
}

/// Before it is granted, where clients show what the proxy says.
fn tunnel_to_a_denied_host_is_refused(world: &World) {
    let client = format!("curl -sSv --cacert {} https://other.test/; echo $?", world.path("root.pem").display());
    for (rules, reason) in [
        (["--deny", "other.test"], "denied by the rule `other.test`"),
        (["--allow", "api.openai.com"], "no rule allows it; add `--allow 'other.test:443'`"),
    ] {
        let output = inside(world, &rules, &client);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(succeeded(&output), "56\n", "{}", show(&output));
        assert!(said.contains("< HTTP/1.1 403 Forbidden") && said.contains("< x-authsome-error: denied"), "{said}");
        assert!(said.contains(reason), "{said}");
    }
    let log = finish(&mut world.start_as_mode(world.command(&[world.path("authsome").to_str().unwrap(), "log", "--json"])));
    assert_eq!(succeeded(&log).matches("\"denied\"").count(), 2, "{}", show(&log));
    assert!(world.internet.take_requests().is_empty());
}

/// No provider claims the host, so it is opened for the rule alone.
fn method_and_path_decide_inside_a_tunnel(world: &World) {
    let client = "curl -sS -w '%{http_code} ' -o /dev/null -o /dev/null https://other.test/ https://other.test/secret/x";
    let output = inside(world, &["--deny", "other.test/secret/**"], client);
    assert_eq!(succeeded(&output), "200 403 ", "{}", show(&output));
    let paths: Vec<_> = world.internet.take_requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/"]);
}

fn requests_for_several_hosts_share_a_connection(world: &World) {
    let urls = "http://other.test/a?b=c http://api.acme.test/d http://other.test/headers";
    let client = format!("head -c 2000000 /dev/zero > large; curl -fsSv --http1.1 --data-binary @large {urls}");
    let output = inside(world, &[], &client);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.matches("Re-using existing connection").count(), 2, "{said}");
    let requests = world.internet.take_requests();
    let seen: Vec<_> = requests.iter().map(|request| (request.authority.as_str(), request.path.as_str(), request.body.len())).collect();
    assert_eq!(seen, [("other.test", "/a?b=c", 2_000_000), ("api.acme.test", "/d", 2_000_000), ("other.test", "/headers", 2_000_000)]);
}
