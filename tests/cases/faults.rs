//! Bad input, a full disk, too many connections: each is felt where it is and nowhere else.

use crate::{
    Case,
    support::world::{OPENAI_KEY, UID, World, finish, show, succeeded},
};
use nix::{
    mount::{MsFlags, mount},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::chown,
    process::{ChildStdout, Stdio},
};

pub const CASES: &[Case] = &[
    ("broken_input_ends_its_own_connection_alone", broken_input_ends_its_own_connection_alone),
    ("descriptor_limit_is_raised_for_the_supervisor_alone", descriptor_limit_is_raised_for_the_supervisor_alone),
    ("full_disk_is_told_at_the_end", full_disk_is_told_at_the_end),
    ("full_disk_stops_a_run_whose_trail_is_required", full_disk_stops_a_run_whose_trail_is_required),
    ("full_disk_leaves_the_old_credential", full_disk_leaves_the_old_credential),
    ("two_thousand_idle_connections_cost_little", two_thousand_idle_connections_cost_little),
    ("two_thousand_idle_opened_connections_cost_little", two_thousand_idle_opened_connections_cost_little),
    ("without_ports_the_next_request_is_told", without_ports_the_next_request_is_told),
    ("silent_resolvers_hold_their_own_questions", silent_resolvers_hold_their_own_questions),
    ("silent_resolvers_hold_their_own_tunnels", silent_resolvers_hold_their_own_tunnels),
    #[cfg(feature = "test-switches")]
    ("a_panic_ends_its_own_connection", a_panic_ends_its_own_connection),
];

fn broken_input_ends_its_own_connection_alone(world: &World) {
    let good = "curl -fsS https://api.openai.com/ >/dev/null && echo served";
    let script = format!("python3 broken.py api.openai.com && {good} && python3 broken.py other.test && {good}");
    let said = succeeded(&world.inside(&["sh", "-c", &script]));
    assert_eq!(said.lines().filter(|line| *line == "served").count(), 2, "{said}");
    let injected =
        |request: &crate::support::internet::Request| request.header("authorization").is_some_and(|value| value.ends_with(OPENAI_KEY));
    assert_eq!(world.internet.take_requests().iter().filter(|request| injected(request)).count(), 2, "only in verified TLS");
}

/// `run --transparent -- script`, started by a shell with a lower soft limit; the pid is the supervisor's.
fn with_limit(world: &World, limit: u32, client: &str) -> std::process::Command {
    let script = format!("ulimit -Sn {limit}; exec {} run --transparent -- {client}", world.path("authsome").display());
    world.start_as_mode(world.command(&["sh", "-c", &script]))
}

fn descriptor_limit_is_raised_for_the_supervisor_alone(world: &World) {
    let client = "sh -c 'ulimit -Sn; read line'";
    let mut child = with_limit(world, 300, client).stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(line, "300\n", "{}", show(&output));
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<_> = limit.split_ascii_whitespace().collect();
    assert!(fields[3] == fields[4] && fields[3] != "300", "{limit}");
}

/// The directory of the trail on a file system of its own, full but for the file's entry.
pub fn fill_the_trails_disk(world: &World) {
    let log = world.home().join(".authsome/log");
    let _ = fs::create_dir(&log);
    mount(Some("tmpfs"), &log, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=0755")).unwrap();
    for path in [log.clone(), log.join("audit.jsonl")] {
        if path != log {
            fs::write(&path, "").unwrap();
        }
        chown(&path, Some(UID), None).unwrap();
    }
    let mut filler = fs::File::create(log.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
}

fn full_disk_is_told_at_the_end(world: &World) {
    succeeded(&world.inside(&["true"]));
    fill_the_trails_disk(world);
    let script = "for i in 1 2 3; do curl -fsS https://api.openai.com/ >/dev/null || exit 9; done; exit 7";
    let output = world.inside(&["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("records could not be written"), "{}", show(&output));
    assert_eq!(world.internet.take_requests().len(), 3);
}

fn full_disk_stops_a_run_whose_trail_is_required(world: &World) {
    let config = world.home().join(".authsome/config.toml");
    let before = fs::read_to_string(&config).unwrap_or_default();
    fs::write(&config, before + "[audit]\nrequired = true\n").unwrap();
    chown(&config, Some(UID), None).unwrap();
    let script = "curl -fsS https://api.openai.com/ >/dev/null; sleep 1000000";
    succeeded(&world.inside(&["curl", "-fsS", "https://api.openai.com/"]));
    fill_the_trails_disk(world);
    let output = world.inside(&["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(125), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("audit.required") && said.contains("records could not be written"), "{}", show(&output));
}

/// The vault on a file system of its own that is full: the new key is refused, the old one is there, and nothing half-written stays.
fn full_disk_leaves_the_old_credential(world: &World) {
    world.log_in();
    let vault = world.home().join(".authsome/vault");
    let aside = world.path("vault");
    succeeded(&world.command(&["cp", "-a", vault.to_str().unwrap(), aside.to_str().unwrap()]).output().unwrap());
    mount(Some("tmpfs"), &vault, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=0700")).unwrap();
    succeeded(&world.command(&["cp", "-a", &format!("{}/.", aside.display()), vault.to_str().unwrap()]).output().unwrap());
    let filler = vault.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let authsome = world.path("authsome");
    let run = |arguments: &[&str], input: &[u8]| {
        let command = world.command(&[&[authsome.to_str().unwrap()], arguments].concat());
        let child = world.start_as_mode(command).stdin(Stdio::piped()).spawn().unwrap();
        crate::support::world::feed(child, input)
    };
    let names = || {
        let mut names: Vec<_> = fs::read_dir(vault.join("openai")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let new = "sk-9876543210jihgfedcbaKEY";
    let refused = run(&["login", "openai", "--stdin", "--force"], new.as_bytes());
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("No space left"), "{}", show(&refused));
    assert!(succeeded(&run(&["export", "openai"], b"")).contains(OPENAI_KEY));
    assert_eq!(names(), before);
    fs::remove_file(filler).unwrap();
    succeeded(&run(&["login", "openai", "--stdin", "--force"], new.as_bytes()));
    assert!(succeeded(&run(&["export", "openai"], b"")).contains(new));
}

const IDLE: u64 = 2000;
const BUSY: u64 = 500;
/// KiB of the supervisor's resident memory that one idle relayed connection may cost: some 5 are its two sockets' tasks, the rest is the
/// allocator's, and nothing near the 64 KiB of a buffer for either direction.
const KIB_PER_IDLE: u64 = 24;

/// A figure of /proc/PID/status in KiB, such as `VmRSS`.
pub fn status_kib(pid: u32, figure: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

pub fn expect_line(stdout: &mut BufReader<ChildStdout>, expected: &str) {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), expected);
}

fn two_thousand_idle_connections_cost_little(world: &World) {
    // The echo server is this process.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut child =
        with_limit(world, 256, &format!("python3 many.py 203.0.113.12 8443 {IDLE} {BUSY}")).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    expect_line(&mut stdout, "one");
    let before = status_kib(child.id(), "VmRSS");
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    expect_line(&mut stdout, "idle");
    let each = status_kib(child.id(), "VmRSS").saturating_sub(before) / IDLE;
    // Another run of the same user is served meanwhile.
    succeeded(&finish(&mut world.authsome(&[], &["curl", "-fsS", "https://api.openai.com/"])));
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    expect_line(&mut stdout, "busy");
    expect_line(&mut stdout, "served");
    let output = child.wait_with_output().unwrap();
    succeeded(&output);
    assert!(each <= KIB_PER_IDLE, "{each} KiB for each idle connection");
}

/// KiB of the supervisor's anonymous memory for an opened connection that waits for its next request: TLS and HTTP on the
/// client's side, and its task. A development build takes 49; what a release takes, docs/performance.md tells.
const KIB_PER_IDLE_OPENED: u64 = 56;

fn two_thousand_idle_opened_connections_cost_little(world: &World) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut command = world.command(&[world.path("authsome").to_str().unwrap(), "run", "--transparent", "--upstream-ca"]);
    command.arg(world.path("root.pem")).args(["--", "python3", "load.py", "idle", &IDLE.to_string(), &BUSY.to_string()]);
    let mut child = world.start_as_mode(command).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    expect_line(&mut stdout, "one");
    let before = super::load::Holds::of(child.id()).kib;
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    expect_line(&mut stdout, "idle");
    let all = super::load::Holds::of(child.id()).kib.saturating_sub(before);
    // Another run of the same user is served meanwhile.
    succeeded(&world.inside(&["curl", "-fsS", "https://api.openai.com/"]));
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    expect_line(&mut stdout, "busy");
    expect_line(&mut stdout, "served");
    succeeded(&child.wait_with_output().unwrap());
    assert!(all <= KIB_PER_IDLE_OPENED * IDLE, "{all} KiB for {IDLE} idle connections");
}

/// Each connection to a server needs a port that no other connection to it has (ip(7), ip_local_port_range).
fn without_ports_the_next_request_is_told(world: &World) {
    const PORTS: usize = 12;
    let range = format!("net.ipv4.ip_local_port_range=50000 {}", 50000 + PORTS - 1);
    // A port that a connection has left serves again after 1 s in place of 60 (TIME-WAIT).
    succeeded(&world.command(&["sysctl", "-w", &range, "net.ipv4.tcp_tw_reuse=1"]).output().unwrap());
    let said = succeeded(&world.inside(&["python3", "load.py", "ports", "30"]));
    let served: usize = said.lines().next().unwrap().parse().unwrap();
    assert!((1..=PORTS).contains(&served), "{said}");
    for told in ["x-authsome-error: upstream-connect", "Cannot assign requested address", "no port of this machine is free"] {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert!(said.ends_with("served\n"), "{said}");
}

fn silent_resolvers_hold_their_own_questions(world: &World) {
    fs::write(world.path("resolv.conf"), "nameserver 203.0.113.53\noptions timeout:1 attempts:3\n").unwrap();
    // SERVFAIL (RFC 1035 §4.1.1).
    assert_eq!(succeeded(&world.inside(&["python3", "load.py", "silence"])), "code 2\n");
}

/// More names than the runtime has threads. Where no lookup is needed, one is not waited for.
fn silent_resolvers_hold_their_own_tunnels(world: &World) {
    fs::write(world.path("resolv.conf"), "nameserver 203.0.113.53\noptions timeout:30 attempts:5\n").unwrap();
    let good = "curl -fsS https://api.openai.com/ >/dev/null && echo served";
    let script = format!(
        "{good}; mkfifo end held; python3 load.py silent_tunnels 600 <end >held & exec 3>end; read line <held; echo $line; \
         {good}; {good}; {good}; kill $!"
    );
    let output = finish(&mut world.by_environment(&[], &["sh", "-c", &script]));
    assert_eq!(succeeded(&output), "served\nheld\nserved\nserved\nserved\n", "{}", show(&output));
}

/// Those before and after are served, each client sees that its own was cut, and the trail tells of both.
#[cfg(feature = "test-switches")]
fn a_panic_ends_its_own_connection(world: &World) {
    let script = "exec 3<>/dev/tcp/203.0.113.12/8443; echo held >&3; read -u 3 line; \
        curl -sS --http1.1 https://api.openai.com/panic; echo $?; curl -sS --http2 https://api.openai.com/panic; echo $?; \
        curl -sS http://other.test/panic; echo $?; \
        echo still >&3; read -u 3 line; echo $line; curl -fsS https://api.openai.com/ >/dev/null && echo served";
    let mut command = world.authsome(&[], &["bash", "-c", script]);
    let output = finish(command.env("AUTHSOME_TEST_PANIC", "/panic"));
    // CURLE_RECV_ERROR, and CURLE_HTTP2_STREAM or CURLE_HTTP2.
    let said = succeeded(&output);
    assert!(["56\n92\n56\nstill\nserved\n", "56\n16\n56\nstill\nserved\n"].contains(&said.as_str()), "{}", show(&output));
    assert_eq!(world.internet.take_requests().iter().filter(|request| request.path == "/panic").count(), 0);
    let trail = fs::read_to_string(world.home().join(".authsome/log/audit.jsonl")).unwrap();
    let records = trail.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let panicked: Vec<_> = records.filter(|record| record["error"] == "panicked" && record["blame"] == "internal").collect();
    let protocols: Vec<_> = panicked.iter().map(|record| record["protocol"].as_str().unwrap()).collect();
    assert_eq!(protocols, ["http/1.1", "h2", "http"], "{trail}");
}
