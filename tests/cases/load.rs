//! Much at once, and for long: slow and broken peers, too few descriptors, and hours in minutes.

use super::faults::status_kib;
use crate::{
    Case,
    support::world::{World, finish, show, succeeded},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    ("slow_peers_hold_their_own_connections", slow_peers_hold_their_own_connections),
    ("slow_http2_readers_hold_their_own_requests", slow_http2_readers_hold_their_own_requests),
    ("a_body_cut_by_the_origin_is_seen_as_cut", a_body_cut_by_the_origin_is_seen_as_cut),
    ("without_descriptors_the_next_connection_waits", without_descriptors_the_next_connection_waits),
    ("a_crowd_of_connections_to_one_host_is_served", a_crowd_of_connections_to_one_host_is_served),
    ("soak", soak),
];

fn slow_peers_hold_their_own_connections(world: &World) {
    assert_eq!(succeeded(&world.inside(&["python3", "load.py", "slow"])), "served\n");
}

/// Their requests share connections to the origin.
fn slow_http2_readers_hold_their_own_requests(world: &World) {
    assert_eq!(succeeded(&world.inside(&["python3", "load.py", "slow_http2"])), "served\n");
}

/// As outside: curl's CURLE_PARTIAL_FILE, and CURLE_HTTP2_STREAM where HTTP/2 tells the same.
fn a_body_cut_by_the_origin_is_seen_as_cut(world: &World) {
    let url = "https://api.openai.com/cut";
    for (version, expected) in [("--http1.1", 18), ("--http2", 92)] {
        let client = format!("curl -sS {version} -o /dev/null {url}; said=$?; curl -fsS {url}/not >/dev/null || exit 99; exit $said");
        let (inside, outside) = (world.inside(&["sh", "-c", &client]), world.outside(&["sh", "-c", &client]));
        assert_eq!(outside.status.code(), Some(expected), "{version} outside: {}", show(&outside));
        assert_eq!(inside.status.code(), Some(expected), "{version} inside: {}", show(&inside));
    }
}

/// Each with a request of its own under way; and then as many streams on one connection as curl lets it have.
fn a_crowd_of_connections_to_one_host_is_served(world: &World) {
    const CROWD: usize = 300;
    const STREAMS: usize = 100;
    let script = format!(
        "ulimit -n 4096; python3 load.py crowd {CROWD}
         curl -fsS --http2 --parallel --parallel-max {STREAMS} 'https://api.openai.com/stream/[1-{STREAMS}]' -d 0123456789 -o 'got#1'
         cat got* | sort | uniq -c; rm got*"
    );
    let client = ["sh", "-euc", &script];
    type Way = fn(&World, &[&str]) -> Output;
    let environment: Way = |world, client| finish(&mut world.by_environment(&[], client));
    for (way, run) in [("outside", World::outside as Way), ("transparent", World::inside), ("environment", environment)] {
        let said = succeeded(&run(world, &client));
        assert_eq!(said.split_whitespace().collect::<Vec<_>>().join(" "), "served 100 10 bytes for api.openai.com", "{way}");
        let mut seen: Vec<_> = world.internet.take_requests().into_iter().map(|request| request.path).collect();
        seen.sort();
        let all = seen.len();
        seen.dedup();
        assert_eq!((all, seen.len()), (CROWD + STREAMS, CROWD + STREAMS), "{way}: each once");
    }
}

/// The hard limit is below what its client needs: connections wait, and are served once others have ended.
fn without_descriptors_the_next_connection_waits(world: &World) {
    const LIMIT: u32 = 80;
    let script = "python3 load.py hold 45 && curl -fsS https://api.openai.com/ && echo served";
    let run = format!(
        "ulimit -n {LIMIT}; exec {} run --transparent --upstream-ca {} -- sh -c '{script}'",
        world.path("authsome").display(),
        world.path("root.pem").display()
    );
    let output = world.start_as_mode(world.command(&["sh", "-c", &run])).output().unwrap();
    let said = succeeded(&output);
    let held: u32 = said.lines().next().and_then(|line| line.parse().ok()).unwrap();
    // Two descriptors each, beside those that every run has.
    assert!((1..LIMIT / 2).contains(&held), "{held} of 45 with {LIMIT} descriptors");
    assert!(said.ends_with("served\n"), "{said}");
}

/// What a process holds: KiB of anonymous memory, descriptors, threads. The program's own pages are left out: in any figure that counts them
/// they weigh the more the fewer other runs there are to share them with.
#[derive(Debug, Clone, Copy)]
pub struct Holds {
    pub kib: u64,
    descriptors: usize,
    threads: usize,
}

impl Holds {
    pub fn of(pid: u32) -> Self {
        let count = |what| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        Self { kib: status_kib(pid, "RssAnon"), descriptors: count("fd"), threads: count("task") }
    }

    fn most(samples: &[Self]) -> Self {
        let most = |figure: fn(&Self) -> u64| samples.iter().map(figure).max().unwrap();
        let descriptors = most(|holds| holds.descriptors as u64) as usize;
        Self { kib: most(|holds| holds.kib), descriptors, threads: most(|holds| holds.threads as u64) as usize }
    }
}

/// Of a mixed load, for AUTHSOME_SOAK_MINUTES (`scripts/soak`) or else for a few rounds: after the first quarter nothing grows.
fn soak(world: &World) {
    const ROUNDS: usize = 12;
    let minutes = std::env::var("AUTHSOME_SOAK_MINUTES").ok().map(|minutes| minutes.parse::<u64>().expect("AUTHSOME_SOAK_MINUTES"));
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let authsome = world.path("authsome");
    let mut command = world.command(&[authsome.to_str().unwrap(), "run", "--transparent", "--upstream-ca"]);
    command.arg(world.path("root.pem")).args(["--", "python3", "load.py", "soak"]);
    let mut child = world.start_as_mode(command).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut samples = Vec::new();
    while until.map_or(samples.len() < ROUNDS, |until| Instant::now() < until) {
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if line != "round\n" {
            drop(child.stdin.take());
            panic!("after {} rounds: {}", samples.len(), show(&child.wait_with_output().unwrap()));
        }
        samples.push(Holds::of(child.id()));
        // The origins of a test remember every request.
        world.internet.take_requests();
        world.internet.take_questions();
    }
    drop(child.stdin.take());
    succeeded(&child.wait_with_output().unwrap());
    let quarter = samples.len() / 4;
    let (early, late) = (Holds::most(&samples[quarter..2 * quarter]), Holds::most(&samples[samples.len() - quarter..]));
    eprintln!("{} rounds; second quarter {early:?}, last {late:?}", samples.len());
    // Connections kept for the next request come and go; a leak of one descriptor or 1 KiB a round would be hundreds.
    assert!(late.descriptors <= early.descriptors + 40, "{early:?} {late:?}");
    assert!(late.threads <= early.threads + 4, "{early:?} {late:?}");
    assert!(late.kib <= early.kib + early.kib / 4 + 4096, "{early:?} {late:?}");
}
