//! Malformed and malicious input on every socket: it ends or holds its own connection, costs bounded memory, and the next one is served.

use super::faults::{expect_line, status_kib};
use crate::{
    Case,
    support::{
        internet::Request,
        world::{OPENAI_KEY, World, succeeded},
    },
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
};

pub const CASES: &[Case] = &[
    ("hostile_http1_holds_its_own_connection", |world| holds_its_own_connection(world, TRANSPARENT, "http1")),
    ("hostile_http2_holds_its_own_connection", |world| holds_its_own_connection(world, TRANSPARENT, "http2")),
    ("hostile_tls_holds_its_own_connection", |world| holds_its_own_connection(world, TRANSPARENT, "tls")),
    ("hostile_dns_holds_its_own_connection", |world| holds_its_own_connection(world, TRANSPARENT, "dns")),
    ("hostile_to_the_proxy_holds_its_own_connection", |world| holds_its_own_connection(world, &[], "explicit")),
    ("hostile_in_a_tunnel_holds_its_own_connection", |world| holds_its_own_connection(world, &[], "tunnel")),
];

/// KiB that the supervisor may grow by while one hostile connection is open, at its peak. The largest are the windows of an HTTP/2 connection
/// (2 MiB in, 64 KiB out for each of 256 streams) and the heads of its requests (64 KiB each).
const KIB_MOST: u64 = 16 * 1024;

const TRANSPARENT: &[&str] = &["--transparent"];

fn holds_its_own_connection(world: &World, mode: &[&str], kind: &str) {
    let authsome = world.path("authsome");
    let mut command = world.command(&[authsome.to_str().unwrap(), "run"]);
    command.args(mode).arg("--upstream-ca").arg(world.path("root.pem")).args(["--", "python3", "hostile.py", "api.openai.com", kind]);
    let mut child = world.start_as_mode(command).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    expect_line(&mut stdout, "ready");
    let before = status_kib(child.id(), "VmHWM");
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let mut names = Vec::new();
    for line in stdout.by_ref().lines() {
        let line = line.unwrap();
        if line == "all" {
            break;
        }
        let grown = status_kib(child.id(), "VmHWM") - before;
        assert!(grown <= KIB_MOST, "{line}: {grown} KiB more at the peak");
        names.push(line);
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    succeeded(&output);
    assert!(names.len() >= 10, "{names:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{}", crate::support::world::show(&output));
    let served =
        |request: &&Request| request.path == "/good" && request.header("authorization").is_some_and(|key| key.ends_with(OPENAI_KEY));
    // One before the first shape, and one beside each.
    assert_eq!(world.internet.take_requests().iter().filter(served).count(), names.len() + 1);
}
