//! However a run ends, it leaves nothing.

use crate::{
    Case,
    support::world::{Mode, World, succeeded},
};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

pub const CASES: &[Case] = &[
    ("kill_of_the_supervisor_leaves_nothing", kill_of_the_supervisor_leaves_nothing),
    ("normal_end_leaves_nothing", normal_end_leaves_nothing),
    ("terminate_is_forwarded", terminate_is_forwarded),
    ("two_runs_do_not_touch_each_other", two_runs_do_not_touch_each_other),
];

/// How long the kernel may take to start a program or to tear down namespaces; nothing waits for all of it unless the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Processes, of this whole machine, whose command line has `mark` as an argument.
pub fn processes(mark: &str) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit());
    let lines = pids.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes()))
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

/// What a run of a user who has logged in could leave on the host: links, addresses, routes, rules, mounts, sysctls and files.
pub fn host_state(world: &World) -> BTreeSet<String> {
    world.log_in();
    let mut state = BTreeSet::new();
    for (program, arguments) in [
        ("ip", &["-o", "link"][..]),
        ("ip", &["-o", "addr"]),
        ("ip", &["route", "show", "table", "all"]),
        ("ip", &["-6", "route", "show", "table", "all"]),
        ("nft", &["list", "ruleset"]),
        ("sysctl", &["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]),
    ] {
        let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
        state.extend(String::from_utf8_lossy(&output.stdout).lines().map(|line| format!("{program}: {line}")));
    }
    state.extend(fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines().map(str::to_owned));
    // Everything a run could have put into the user's home, but for the trail, which stays.
    state.extend(files_below(&world.home()).into_iter().filter(|path| !path.contains("/.authsome/log")));
    for directory in ["/tmp", "/dev/shm", "/run", "/var/tmp"] {
        state.extend(
            fs::read_dir(directory)
                .unwrap()
                .flatten()
                .map(|entry| entry.path().display().to_string())
                // The environment mode keeps its certificates there while it runs, elsewhere on this machine too.
                .filter(|path| path.contains("authsome") && !path.contains("authsome-run-")),
        );
    }
    state
}

fn files_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries
        .flat_map(|entry| {
            let below = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { files_below(&entry.path()) } else { Vec::new() };
            [vec![entry.path().display().to_string()], below].concat()
        })
        .collect()
}

/// A run whose child says `ready` and then sleeps for `mark` seconds. Started without timeout(1): its pid is the supervisor's.
fn start(world: &World, mark: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let script = format!("curl -fsS https://api.openai.com/ >/dev/null; echo ready; exec sleep {mark}");
    let mut command = world.command(&[world.path("authsome").to_str().unwrap(), "run", "--transparent", "--upstream-ca"]);
    command.arg(world.path("root.pem")).args(["--", "sh", "-c", &script]);
    let mut child = world.start_as_mode(command).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    if line != "ready\n" {
        let _ = child.kill();
        panic!("not ready: {line:?} {}", crate::support::world::show(&child.wait_with_output().unwrap()));
    }
    // Between its word and its sleep the child has yet to exec.
    let deadline = Instant::now() + PATIENCE;
    while processes(mark).is_empty() {
        assert!(Instant::now() < deadline, "the child does not sleep");
        std::thread::sleep(Duration::from_millis(5));
    }
    (child, stdout)
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// The seconds that the sleeps of one world take; no other process of the machine sleeps as long.
pub fn mark(world: &World, n: u32) -> String {
    let mode = if world.mode == Mode::Sudo { 1 } else { 2 };
    format!("{}{mode}{n}", 1_000_000 + std::process::id())
}

/// The kernel removes a namespace some time after its last process.
#[track_caller]
pub fn becomes(world: &World, before: &BTreeSet<String>, mark: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<_> = host_state(world).difference(before).cloned().chain(processes(mark)).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind:\n{}", left.join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Links, processes and mounts go with the namespaces; what sudo's uplink changed on the host is undone by the next call.
fn kill_of_the_supervisor_leaves_nothing(world: &World) {
    let (before, mark) = (host_state(world), mark(world, 1));
    let (mut child, _stdout) = start(world, &mark);
    signal(&child, nix::sys::signal::Signal::SIGKILL);
    child.wait().unwrap();
    if world.mode == Mode::Sudo {
        succeeded(&world.inside(&["true"]));
    }
    becomes(world, &before, &mark);
}

fn normal_end_leaves_nothing(world: &World) {
    let before = host_state(world);
    succeeded(&world.inside(&["curl", "-fsS", "https://api.openai.com/"]));
    becomes(world, &before, "no such argument");
}

fn terminate_is_forwarded(world: &World) {
    let (before, mark) = (host_state(world), mark(world, 2));
    let (mut child, _stdout) = start(world, &mark);
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    let status: ExitStatus = child.wait().unwrap();
    assert_eq!(status.code(), Some(128 + 15), "{status}");
    becomes(world, &before, &mark);
}

fn two_runs_do_not_touch_each_other(world: &World) {
    let (before, mark) = (host_state(world), mark(world, 3));
    let (mut child, _stdout) = start(world, &mark);
    succeeded(&world.inside(&["curl", "-fsS", "https://api.openai.com/"]));
    assert_eq!(processes(&mark).len(), 1, "the first run lost its child");
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    child.wait().unwrap();
    becomes(world, &before, &mark);
}
