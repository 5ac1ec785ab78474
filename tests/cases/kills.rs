//! SIGKILL at random moments, and runs of several users at once.

use crate::{
    Case,
    support::world::{Mode, NEIGHBOUR, World, show, succeeded},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use super::death::{PATIENCE, becomes, host_state};

pub const CASES: &[Case] = &[
    ("kills_at_random_moments_leave_nothing", kills_at_random_moments_leave_nothing),
    ("four_runs_of_two_users_do_not_touch_each_other", four_runs_of_two_users_do_not_touch_each_other),
];

/// Rounds of random kills, unless AUTHSOME_KILL_ROUNDS says otherwise.
const ROUNDS: u64 = 200;
/// Runs of one batch, each killed at a moment of its own while the others start, serve and die.
const AT_ONCE: u64 = 4;

#[derive(Debug, Clone, Copy)]
enum Victims {
    Supervisor,
    Init,
    Command,
    SupervisorAndCommand,
    SupervisorAndInit,
}

const VICTIMS: [Victims; 5] =
    [Victims::Supervisor, Victims::Init, Victims::Command, Victims::SupervisorAndCommand, Victims::SupervisorAndInit];

/// SplitMix64 (Steele, Lea, Flood 2014): the same rounds each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A process, held so that its number cannot come to mean another one: its file in /proc reads ESRCH once it is gone (proc(5)).
struct Held {
    pid: i32,
    stat: File,
}

impl Held {
    fn open(pid: i32) -> Option<Self> {
        Some(Self { pid, stat: File::open(format!("/proc/{pid}/stat")).ok()? })
    }

    fn is_alive(&self) -> bool {
        let mut buffer = [0; 64];
        self.stat.read_at(&mut buffer, 0).is_ok_and(|length| !is_zombie(&buffer[..length]))
    }

    fn has_ended(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.is_alive() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        !self.is_alive()
    }
}

/// Ended, and yet to be waited for by whoever inherited it, here the init of the machine (proc_pid_stat(5): `pid (name) state …`).
fn is_zombie(stat: &[u8]) -> bool {
    String::from_utf8_lossy(stat).rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['Z', 'X']))
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn descendants(pid: i32) -> Vec<i32> {
    children(pid).into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

/// Each process of a run is in a PID namespace of its own.
const NAMESPACES: [&str; 3] = ["user", "pid", "pid_for_children"];

/// The namespaces of a process, as `pid:[4026531836]` and the like.
fn namespaces(pid: &str) -> BTreeSet<String> {
    let links = NAMESPACES.map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")));
    links.into_iter().flatten().map(|link| link.display().to_string()).collect()
}

/// As long as they are open, no other namespace gets their numbers.
fn open_namespaces(pid: i32) -> impl Iterator<Item = File> {
    NAMESPACES.into_iter().filter_map(move |kind| File::open(format!("/proc/{pid}/ns/{kind}")).ok())
}

/// Processes of the machine with the mark in their environment, or in one of these namespaces.
fn left(mark: &str, namespaces_of_run: &BTreeSet<String>) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let of_run = |pid: &String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let marked = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
        let ended = fs::read(format!("/proc/{pid}/stat")).map_or(true, |stat| is_zombie(&stat));
        !ended && (marked || !namespaces(pid).is_disjoint(namespaces_of_run))
    };
    let left = all.filter(|name| name.as_bytes()[0].is_ascii_digit()).filter(of_run);
    left.map(|pid| format!("process {pid}: {}", fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())).collect()
}

/// A run that lasts, and its child's background process. Its pid is the supervisor's.
fn start(world: &World, mark: &str) -> Child {
    let script = "sleep 1000000 & curl -fsS https://api.openai.com/ >/dev/null && echo ready; exec sleep 1000000";
    let mut command = world.command(&[world.path("authsome").to_str().unwrap(), "run", "--transparent", "--upstream-ca"]);
    command.arg(world.path("root.pem")).args(["--", "sh", "-c", script]);
    let (name, value) = mark.split_once('=').unwrap();
    world.start_as_mode(command).env(name, value).spawn().unwrap()
}

/// How long as many runs as one batch has take to have served a request each: the span in which the moments lie.
fn time_to_ready(world: &World, mark: &str) -> Duration {
    let started = Instant::now();
    let mut runs: Vec<_> = (0..AT_ONCE).map(|_| start(world, mark)).collect();
    for child in &mut runs {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
    }
    let taken = started.elapsed();
    for child in runs {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
        drop(child.wait_with_output());
    }
    taken
}

/// One run of a batch: when it is struck, since the batch began, and who.
struct Round {
    child: Child,
    moment: Duration,
    victims: Victims,
    what: String,
}

fn kills_at_random_moments_leave_nothing(world: &World) {
    let rounds = std::env::var("AUTHSOME_KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("AUTHSOME_KILL_ROUNDS"));
    let mark = format!("AUTHSOME_TEST_MARK={}-{:?}", std::process::id(), world.mode);
    let before = host_state(world);
    let span = time_to_ready(world, &mark).as_micros() as u64 * 5 / 4;
    let mut random = Random(1);
    for batch in 0..rounds.div_ceil(AT_ONCE) {
        let started = Instant::now();
        let first = batch * AT_ONCE;
        let mut runs: Vec<_> = (first..rounds.min(first + AT_ONCE))
            .map(|round| {
                let moment = Duration::from_micros(random.next() % span);
                let victims = VICTIMS[(random.next() % VICTIMS.len() as u64) as usize];
                Round { child: start(world, &mark), moment, victims, what: format!("round {round}, {victims:?} after {moment:?}") }
            })
            .collect();
        runs.sort_by_key(|run| run.moment);
        let mut struck = Vec::new();
        for run in runs {
            thread::sleep(run.moment.saturating_sub(started.elapsed()));
            let numbers: Vec<_> = descendants(run.child.id() as i32).into_iter().flat_map(open_namespaces).collect();
            let (held, namespaces) = strike(run.child.id() as i32, run.victims);
            struck.push((run, held, namespaces, numbers));
        }
        for (mut run, held, namespaces, _numbers) in struck {
            let what = run.what;
            let status = wait(&mut run.child).unwrap_or_else(|| panic!("{what}: the supervisor goes on"));
            assert!(!status.success(), "{what}: said to have gone well");
            for process in held {
                assert!(process.has_ended(), "{what}: process {} goes on", process.pid);
            }
            nothing_is_left(&what, "no mark", &namespaces);
            // The streams close with the last process that has them.
            drop(run.child.wait_with_output());
        }
        nothing_is_left(&format!("batch {batch}"), &mark, &BTreeSet::new());
    }
    if world.mode == Mode::Sudo {
        succeeded(&world.inside(&["true"]));
    }
    becomes(world, &before, "no such argument");
}

fn nothing_is_left(what: &str, mark: &str, namespaces_of_run: &BTreeSet<String>) {
    let deadline = Instant::now() + PATIENCE;
    while !left(mark, namespaces_of_run).is_empty() {
        assert!(Instant::now() < deadline, "{what}: left\n{}", left(mark, namespaces_of_run).join("\n"));
        thread::sleep(Duration::from_millis(10));
    }
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().unwrap() {
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            ended => return ended,
        }
    }
}

/// Kills whoever of the victims there is at this moment, or else the supervisor. Returns the run's processes and namespaces.
fn strike(supervisor: i32, victims: Victims) -> (Vec<Held>, BTreeSet<String>) {
    let outside = namespaces("self");
    let inside = descendants(supervisor);
    let held: Vec<_> = inside.iter().filter_map(|pid| Held::open(*pid)).collect();
    let namespaces_of_run = inside.iter().flat_map(|pid| namespaces(&pid.to_string())).filter(|ns| !outside.contains(ns)).collect();
    let init = children(supervisor).first().copied();
    let command = init.and_then(|init| children(init).first().copied());
    let (alive, also_supervisor) = match victims {
        Victims::Supervisor => (None, true),
        Victims::Init => (init, false),
        Victims::Command => (command, false),
        Victims::SupervisorAndCommand => (command, true),
        Victims::SupervisorAndInit => (init, true),
    };
    if also_supervisor || alive.is_none() {
        kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    }
    // It may have followed the supervisor already.
    alive.map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
    (held, namespaces_of_run)
}

/// Each run answers its own requests while the others come and go.
fn four_runs_of_two_users_do_not_touch_each_other(world: &World) {
    let before = host_state(world);
    let script = "for i in 1 2 3 4 5; do curl -fsS https://api.openai.com/ >/dev/null || exit 9; done; echo served; read line; \
                  curl -fsS https://api.openai.com/ >/dev/null && echo served again";
    let mut runs: Vec<_> = [None, Some(NEIGHBOUR), None, Some(NEIGHBOUR)]
        .map(|user| {
            let mut command = world.authsome_for(user, &[], &["sh", "-c", script]);
            let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
            let stdout = BufReader::new(child.stdout.take().unwrap());
            (child, stdout)
        })
        .into();
    for (_, stdout) in &mut runs {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "served\n");
    }
    // The first is killed with its supervisor, the others go on.
    let (mut first, _) = runs.remove(0);
    for pid in descendants(first.id() as i32).into_iter().rev() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    drop(first.stdin.take());
    assert!(!first.wait().unwrap().success());
    for (mut child, mut stdout) in runs {
        drop(child.stdin.take());
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(rest, "served again\n", "{}", show(&output));
        assert!(output.status.success(), "{}", show(&output));
    }
    assert_eq!(world.internet.take_requests().len(), 4 * 5 + 3);
    if world.mode == Mode::Sudo {
        succeeded(&world.inside(&["true"]));
    }
    becomes(world, &before, "no such argument");
}
