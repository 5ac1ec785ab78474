//! SIGKILL before each change of a file: what is stored is the old or the new, whole, and the next call leaves nothing else.
//!
//! strace(1) kills at the n-th system call of a kind, for every n there is. Between two changes one moment is as good as another.

use crate::support::{Home, Told};
use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

/// What changes files once they are open; a file that was only made is found when it is written to. `?`: where the architecture has it.
const CHANGES: [&str; 15] = [
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fchmod",
    "?chmod",
    "fchmodat",
    "?rename",
    "?renameat",
    "renameat2",
    "?link",
    "linkat",
    "?unlink",
    "unlinkat",
    "?rmdir",
];

/// A command that changes what is stored.
struct Change {
    /// Run before, each with its input.
    before: &'static [(&'static [&'static str], &'static str)],
    command: &'static [&'static str],
    input: &'static str,
    /// As the command, where it finds the new state already.
    again: &'static [&'static str],
    /// Its exit code there.
    code: i32,
    /// What tells old from new.
    shows: &'static [&'static str],
}

const LOGIN: &[&str] = &["login", "acme", "--stdin", "-q"];
const WORK: &[&str] = &["login", "acme", "--stdin", "-q", "--connection", "work"];
const EXPORT: &[&str] = &["export", "acme", "--connection", "work"];
const REGISTER: &[&str] = &["provider", "register", "NEW", "--force", "-q"];

/// The first makes the vault's key, too.
#[test]
fn the_first_login() {
    const AGAIN: &[&str] = &["login", "acme", "--stdin", "-q", "--connection", "work", "--force"];
    kill_everywhere(&Change { before: &[], command: WORK, input: "ak-1", again: AGAIN, code: 0, shows: EXPORT });
}

#[test]
fn a_login_in_place_of_another() {
    const FORCE: &[&str] = &["login", "acme", "--stdin", "-q", "--connection", "work", "--force"];
    let before: &[(&[&str], &str)] = &[(LOGIN, "ak-1"), (WORK, "ak-2")];
    kill_everywhere(&Change { before, command: FORCE, input: "ak-3", again: FORCE, code: 0, shows: EXPORT });
}

#[test]
fn another_default() {
    const DEFAULT: &[&str] = &["set-default", "acme", "work", "-q"];
    let before: &[(&[&str], &str)] = &[(LOGIN, "ak-1"), (WORK, "ak-2")];
    kill_everywhere(&Change { before, command: DEFAULT, input: "", again: DEFAULT, code: 0, shows: &["export", "acme"] });
}

/// Of the default, whose mark goes with it.
#[test]
fn a_logout() {
    const LOGOUT: &[&str] = &["logout", "acme", "--connection", "work", "-q"];
    let before: &[(&[&str], &str)] = &[(WORK, "ak-2"), (LOGIN, "ak-1")];
    kill_everywhere(&Change { before, command: LOGOUT, input: "", again: LOGOUT, code: 3, shows: EXPORT });
}

#[test]
fn a_definition() {
    let shows = &["provider", "inspect", "acme"];
    kill_everywhere(&Change { before: &[], command: REGISTER, input: "", again: REGISTER, code: 0, shows });
}

#[test]
fn a_definition_removed() {
    let before: &[(&[&str], &str)] = &[(REGISTER, "")];
    const REMOVE: &[&str] = &["provider", "remove", "acme", "-q"];
    kill_everywhere(&Change { before, command: REMOVE, input: "", again: REMOVE, code: 4, shows: &["provider", "inspect", "acme"] });
}

#[test]
fn the_certificate_authority() {
    const EXPORT: &[&str] = &["ca", "export"];
    let mut kills = 0;
    for_every_change(|call, n| {
        let home = Home::new();
        if !killed_at(&home, EXPORT, "", call, n) {
            return false;
        }
        kills += 1;
        let first = home.run(EXPORT);
        assert!(first.code == Some(0) && first.stdout.starts_with("-----BEGIN CERTIFICATE-----"), "{call} {n}: {first:?}");
        assert_eq!(home.run(EXPORT), first);
        nothing_half_written(&home.path(""), &format!("{call} {n}"));
        true
    });
    // Two files, each written, synced and put in its place.
    assert!(kills >= 6, "{kills}");
}

fn kill_everywhere(change: &Change) {
    let prepared = || {
        let home = Home::new();
        let definition = fs::read_to_string(home.path("providers/acme.json")).unwrap();
        fs::write(home.path("new.json"), definition.replace("\"Acme\"", "\"New Acme\"")).unwrap();
        for (arguments, input) in change.before {
            assert_eq!(feed(&home, arguments, input).code, Some(0), "{arguments:?}");
        }
        home
    };
    let (old_home, new_home) = (prepared(), prepared());
    assert_eq!(feed(&new_home, change.command, change.input).code, Some(0));
    let (old, new) = (old_home.run(change.shows), new_home.run(change.shows));
    assert_ne!(old, new, "the change shows");
    let all = new_home.run(&["list", "--json"]);
    let mut kills = 0;
    for_every_change(|call, n| {
        let home = prepared();
        if !killed_at(&home, change.command, change.input, call, n) {
            return false;
        }
        kills += 1;
        let what = format!("{:?} killed at {call} {n}", change.command);
        let found = home.run(change.shows);
        assert!(found == old || found == new, "{what}: {found:?}");
        let again = feed(&home, change.again, change.input);
        assert!(again.code == Some(0) || found == new && again.code == Some(change.code), "{what}: {again:?}");
        assert_eq!((home.run(change.shows), home.run(&["list", "--json"])), (new.clone(), all.clone()), "{what}");
        nothing_half_written(&home.path(""), &what);
        true
    });
    assert!(kills > 0, "nothing was changed");
}

/// Until the n-th call of a kind is one too many.
fn for_every_change(mut kill: impl FnMut(&str, u32) -> bool) {
    for call in CHANGES {
        (1..).take_while(|n| kill(call, *n)).for_each(drop);
    }
}

/// False: it came to its end without an n-th such call.
fn killed_at(home: &Home, arguments: &[&str], input: &str, call: &str, n: u32) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={n}");
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}")).arg("-e").arg(inject).arg(env!("CARGO_BIN_EXE_authsome"));
    let command = home.clean(command, &[]);
    let output = with_input(home, command, arguments, input).output().expect("strace (package strace)");
    assert!(output.status.success() || output.status.signal() == Some(9), "{arguments:?} at {call} {n}: {output:?}");
    !output.status.success()
}

fn feed(home: &Home, arguments: &[&str], input: &str) -> Told {
    let output = with_input(home, home.command(&[]), arguments, input).output().unwrap();
    home.told(output)
}

/// From a file, which nobody need fill while the command runs. `NEW` is the path of a definition.
fn with_input(home: &Home, mut command: Command, arguments: &[&str], input: &str) -> Command {
    fs::write(home.path("input"), input).unwrap();
    let definition = home.path("new.json");
    command.args(arguments.iter().map(|argument| if *argument == "NEW" { definition.as_os_str() } else { argument.as_ref() }));
    command.stdin(Stdio::from(File::open(home.path("input")).unwrap()));
    command
}

fn nothing_half_written(directory: &Path, what: &str) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(name == ".lock" || name == ".default" || !name.starts_with('.'), "{what}: {} is left", entry.path().display());
        if entry.file_type().unwrap().is_dir() {
            nothing_half_written(&entry.path(), what);
        }
    }
}
