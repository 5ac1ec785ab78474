//! The owner's trail of real runs: whole after a kill, followed over a rotation, in colours only where they are wanted.

use crate::{
    Case,
    support::world::{UID, World, finish, show, succeeded},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::chown,
    process::{Command, Stdio},
};

pub const CASES: &[Case] = &[
    ("a_killed_run_leaves_what_it_did", a_killed_run_leaves_what_it_did),
    ("environment_mode_stops_without_its_trail", environment_mode_stops_without_its_trail),
    ("followed_over_a_rotation", followed_over_a_rotation),
    ("denials_are_seen_at_a_glance", denials_are_seen_at_a_glance),
];

fn log(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.command(&["timeout", "--foreground", "-k", "5", "60"]);
    command.arg(world.path("authsome")).arg("log").args(arguments);
    world.start_as_mode(command)
}

/// Requests that have ended are on disk although nobody could flush; the one under way is the loss.
fn a_killed_run_leaves_what_it_did(world: &World) {
    let script = "curl -fsS -o /dev/null https://api.openai.com/done; curl -fsS -o /dev/null https://other.test/; echo ready; read end";
    let mut child = world.authsome(&[], &["sh", "-c", script]).env("CURL_CA_BUNDLE", "").stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = child.id();
    let supervisor = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    kill(Pid::from_raw(supervisor.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    let said = succeeded(&finish(&mut log(world, &[])));
    assert!(said.contains("injected   GET api.openai.com/done  200  openai"), "{said}");
}

/// The command, which would go on for ever, is ended with the run.
fn environment_mode_stops_without_its_trail(world: &World) {
    succeeded(&world.inside(&["true"]));
    let config = world.home().join(".authsome/config.toml");
    fs::write(&config, "[audit]\nrequired = true\n").unwrap();
    chown(&config, Some(UID), None).unwrap();
    crate::cases::faults::fill_the_trails_disk(world);
    let mut command = world.command(&["timeout", "--foreground", "-k", "5", "60"]);
    command.arg(world.path("authsome")).args(["run", "--upstream-ca"]).arg(world.path("root.pem"));
    command.args(["--", "sh", "-c", "curl -fsS -o /dev/null https://api.openai.com/; exec sleep 1000000"]);
    let output = finish(&mut world.start_as_mode(command));
    assert_eq!(output.status.code(), Some(125), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("audit.required"), "{}", show(&output));
}

fn followed_over_a_rotation(world: &World) {
    succeeded(&world.inside(&["true"]));
    let config = world.home().join(".authsome/config.toml");
    let before = fs::read_to_string(&config).unwrap_or_default();
    fs::write(&config, before + "[audit]\nmax_size = 4096\n").unwrap();
    chown(&config, Some(UID), None).unwrap();
    let mut following = log(world, &["-f", "--json", "-n", "0"]).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    const REQUESTS: usize = 60;
    // One connection; each request waits until the one before was seen, so that none is rotated away unseen.
    for n in 0..REQUESTS {
        if n % 20 == 0 {
            let script = format!("for i in $(seq {n} {}); do curl -fsS -o /dev/null https://api.openai.com/$i; done", n + 19);
            succeeded(&world.inside(&["sh", "-c", &script]));
        }
        let record: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(record["path"], format!("/{n}"));
    }
    kill(Pid::from_raw(following.id() as i32), Signal::SIGTERM).unwrap();
    following.wait().unwrap();
    let trail = world.home().join(".authsome/log");
    assert!(trail.join("audit.jsonl.1").exists() && trail.join("audit.jsonl").metadata().unwrap().len() <= 4096);
    let all = succeeded(&finish(&mut log(world, &["-n", "1000"])));
    assert_eq!(all.lines().count(), REQUESTS, "reading back goes over the rotated files, too");
}

/// On a terminal a denial is red, elsewhere and with NO_COLOR nothing is coloured.
fn denials_are_seen_at_a_glance(world: &World) {
    let client = ["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "http://other.test/x"];
    world.run(&["--allow", "api.acme.test", "--allow", "other.test:443"], &client);
    let plain = "denied     http other.test:80  403  no rule allows it; add `--allow 'other.test:80'`";
    let piped = succeeded(&finish(&mut log(world, &[])));
    assert!(piped.contains(plain) && !piped.contains('\u{1b}'), "{piped}");
    let terminal = |no_color: Option<&str>| {
        let script = format!("script -qec '{} log' /dev/null", world.path("authsome").display());
        let mut command = world.start_as_mode(world.command(&["sh", "-c", &script]));
        command.env("TERM", "xterm").envs(no_color.map(|value| ("NO_COLOR", value)));
        let output = finish(&mut command);
        assert!(output.status.success(), "{}", show(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(terminal(None).contains("\u{1b}[1m\u{1b}[31mdenied   \u{1b}[0m  http other.test:80"), "{:?}", terminal(None));
    assert!(!terminal(Some("1")).contains('\u{1b}'));
}
