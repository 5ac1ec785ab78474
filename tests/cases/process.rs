//! The child is started, signalled and ended as if the command were not there.

use crate::{
    Case,
    support::world::{World, feed, finish, show, succeeded},
};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Stdio,
};

pub const CASES: &[Case] = &[
    ("exit_codes_are_the_childs", exit_codes_are_the_childs),
    ("a_command_is_found_as_execvp_finds_it", a_command_is_found_as_execvp_finds_it),
    ("a_directory_that_is_not_the_users_is_named", a_directory_that_is_not_the_users_is_named),
    ("failures_before_the_child_have_their_codes", failures_before_the_child_have_their_codes),
    ("signals_are_as_outside", signals_are_as_outside),
    ("stdin_is_the_childs", stdin_is_the_childs),
    ("terminal_is_the_childs", terminal_is_the_childs),
    ("ctrl_c_reaches_the_child", ctrl_c_reaches_the_child),
    ("same_identity_as_outside", same_identity_as_outside),
    ("leftovers_end_with_the_run", leftovers_end_with_the_run),
    ("a_run_inside_a_run_is_refused", a_run_inside_a_run_is_refused),
    ("quiet_says_nothing", quiet_says_nothing),
    ("stops_and_goes_on_with_the_child", |world| stops_and_goes_on(world, &["--transparent"])),
    ("stops_and_goes_on_with_the_child_in_the_environment_mode", |world| stops_and_goes_on(world, &[])),
];

fn exit_codes_are_the_childs(world: &World) {
    for (client, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
        (&["/etc/passwd"], 126),
        (&["no-such-program"], 127),
    ] {
        let output = world.inside(client);
        assert_eq!(output.status.code(), Some(code), "{client:?}: {}", show(&output));
    }
}

/// In the first directory that has a file of that name to be run, and as a shell script where it names no interpreter.
fn a_command_is_found_as_execvp_finds_it(world: &World) {
    let make = |directory: &str, mode: u32, text: &str| {
        fs::create_dir_all(world.path(directory)).unwrap();
        let file = world.path(directory).join("found");
        fs::write(&file, text).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    };
    make("plain", 0o644, "echo not to be run\n");
    make("script", 0o755, "echo \"$0 $*\"\n");
    make("later", 0o755, "echo too late\n");
    fs::create_dir_all(world.path("directory/found")).unwrap();
    let path = ["directory", "plain", "script", "later"].map(|directory| world.path(directory).to_str().unwrap().to_owned()).join(":");
    for way in [World::authsome, World::by_environment] {
        let output = finish(way(world, &[], &["found", "one", "two"]).env("PATH", format!("{path}:/usr/bin:/bin")));
        assert_eq!(succeeded(&output), format!("{} one two\n", world.path("script/found").display()));
    }
}

/// As root's home is where root runs a program for somebody else.
fn a_directory_that_is_not_the_users_is_named(world: &World) {
    let script = "mkdir closed && cd closed && chmod 0 . && exec \"$0\" run --transparent -- echo started";
    let authsome = world.path("authsome");
    let mut command = world.start_as_mode(world.command(&["sh", "-c", script, authsome.to_str().unwrap()]));
    let output = finish(command.current_dir(world.home()));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", show(&output));
    assert!(told.contains("enter the working directory") && told.contains("closed"), "{told}");
}

/// Asked of the child itself: a shell would clear its mask before it starts anything. Signals 32 and 33 are the C library's own (nptl(7)), and whatever it
/// starts by posix_spawn(3) has them ignored.
fn signals_are_as_outside(world: &World) {
    const OF_LIBRARY: u64 = 0b11 << 31;
    let client = ["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"];
    let signals = |output| {
        let text = succeeded(&output);
        let masks = text.lines().map(|line| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap() & !OF_LIBRARY);
        masks.collect::<Vec<_>>()
    };
    let outside = signals(world.outside(&client));
    assert_eq!(outside.len(), 2);
    assert_eq!(signals(world.inside(&client)), outside);
}

fn failures_before_the_child_have_their_codes(world: &World) {
    for (options, code) in
        [(&["--no-such-option"][..], 2), (&["--upstream-ca", "/nowhere.pem"], 2), (&["--connection", "nobody=default"], 4)]
    {
        let output = world.run(options, &["sh", "-c", "echo started"]);
        assert!(output.status.code().is_some_and(|seen| seen != 0), "{options:?}: {}", show(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{options:?}: {}", show(&output));
        assert_eq!(output.status.code(), Some(code), "{options:?}: {}", show(&output));
    }
}

fn stdin_is_the_childs(world: &World) {
    let child = world.authsome(&[], &["wc", "-c"]).stdin(Stdio::piped()).spawn().unwrap();
    let output = feed(child, &[b'x'; 100_000]);
    assert_eq!(succeeded(&output).trim(), "100000");
}

/// The command line of `authsome run`, quoted for the shell that script(1) starts.
fn under_a_terminal(world: &World, client: &str) -> std::process::Command {
    let run = format!("exec {} run --transparent -- {client}", world.path("authsome").display());
    world.start_as_mode(world.command(&["timeout", "-k", "5", "60", "script", "-qec", &run, "/dev/null"]))
}

fn terminal_is_the_childs(world: &World) {
    let output =
        finish(&mut under_a_terminal(world, "sh -c 'test -t 0 && test -t 1 && stty -a >/dev/null && ps -o stat= -p $$ && echo terminal'"));
    let said = succeeded(&output);
    assert!(said.contains("terminal") && said.contains('+'), "in the foreground of a terminal: {}", show(&output));
}

/// The interrupt character is typed once the child says that it waits.
fn ctrl_c_reaches_the_child(world: &World) {
    use std::io::{BufRead, BufReader, Read, Write};
    let client = r#"sh -c 'trap "echo interrupted; exit 5" INT; echo ready; while :; do sleep 0.05; done'"#;
    let mut child = under_a_terminal(world, client).stdin(Stdio::piped()).spawn().unwrap();
    let mut terminal = BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("ready") {
        assert_ne!(terminal.read_line(&mut seen).unwrap(), 0, "ended early: {seen}");
    }
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    terminal.read_to_string(&mut seen).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(seen.contains("interrupted"), "{seen}{}", show(&output));
    assert_eq!(output.status.code(), Some(5), "{seen}{}", show(&output));
}

fn same_identity_as_outside(world: &World) {
    let client = ["sh", "-c", "id -u; id -g; pwd; echo $HOME; umask; ulimit -c; ulimit -n; locale 2>/dev/null | head -1"];
    assert_eq!(succeeded(&world.inside(&client)), succeeded(&world.outside(&client)));
    succeeded(&world.inside(&["sh", "-c", "echo mine > made-inside"]));
    assert_eq!(succeeded(&world.outside(&["stat", "-c", "%u %g", "made-inside"])), "4242 4243\n");
}

/// The job closes the streams, or waiting for their end would be waiting for the job.
fn leftovers_end_with_the_run(world: &World) {
    let mark = super::death::mark(world, 9);
    let output = world.inside(&["sh", "-c", &format!("sleep {mark} >/dev/null 2>&1 & echo started")]);
    assert_eq!(succeeded(&output), "started\n");
    assert!(super::death::processes(&mark).is_empty(), "the job outlived the run");
}

fn a_run_inside_a_run_is_refused(world: &World) {
    let authsome = world.path("authsome");
    let authsome = authsome.to_str().unwrap();
    for command in [&["run", "--transparent", "--", "true"][..], &["export", "openai"], &["login", "openai", "--stdin"]] {
        let output = world.inside(&[&[authsome], command].concat());
        assert_eq!(output.status.code(), Some(4), "{command:?}: {}", show(&output));
    }
}

fn quiet_says_nothing(world: &World) {
    let run = |options: &[&str]| world.run(options, &["true"]).stderr;
    assert_eq!(String::from_utf8_lossy(&run(&["-q"])), "");
    assert!(!run(&[]).is_empty(), "one line says what is in force");
}

/// Job control: a shell sees that the job has stopped, and continues it.
fn stops_and_goes_on(world: &World, mode: &[&str]) {
    let authsome = world.path("authsome");
    let client = ["--", "sh", "-c", "kill -STOP $$; echo on"];
    let mut command = world.command(&[&[authsome.to_str().unwrap(), "run"], mode, &client].concat());
    // Its own group, as a shell starts a job.
    command.process_group(0);
    let child = world.start_as_mode(command).spawn().unwrap();
    let supervisor = Pid::from_raw(child.id().cast_signed());
    assert_eq!(waitpid(supervisor, Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(supervisor, Signal::SIGSTOP)));
    kill(supervisor, Signal::SIGCONT).unwrap();
    assert_eq!(succeeded(&child.wait_with_output().unwrap()), "on\n");
}
