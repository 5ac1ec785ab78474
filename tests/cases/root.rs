//! What root's rights are used for when root starts the run for a user: namespaces and the uplink, never a file of the user's.

use crate::{
    Case,
    support::world::{GID, Mode, OPENAI_KEY, UID, World, finish, show, succeeded},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, lchown, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

pub const CASES: &[Case] = &[
    ("supervisor_keeps_the_users_id_and_one_capability", supervisor_keeps_the_users_id_and_one_capability),
    ("memory_of_the_first_process_holds_no_key", memory_of_the_first_process_holds_no_key),
    ("links_to_files_of_root_lead_nowhere", links_to_files_of_root_lead_nowhere),
    ("links_exchanged_during_the_start_lead_nowhere", links_exchanged_during_the_start_lead_nowhere),
    ("files_inside_are_made_with_the_users_rights", files_inside_are_made_with_the_users_rights),
    ("a_firewall_that_drops_forwarding_lets_the_uplink_through", a_firewall_that_drops_forwarding_lets_the_uplink_through),
];

/// A run that has started its command, which ends with its input.
fn started(world: &World) -> Child {
    let mut child = world.authsome(&[], &["sh", "-c", "echo ready; read end"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn supervisor_keeps_the_users_id_and_one_capability(world: &World) {
    let mut child = started(world);
    // `timeout` has one child, the supervisor.
    let pid = child.id();
    let supervisor = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let tasks = fs::read_dir(format!("/proc/{}/task", supervisor.trim())).unwrap();
    const CAP_NET_ADMIN: &str = "0000000000001000";
    const NONE: &str = "0000000000000000";
    let kept = if world.mode == Mode::Sudo { CAP_NET_ADMIN } else { NONE };
    let mut threads = 0;
    for task in tasks.map(|task| task.unwrap().path()) {
        let status = fs::read_to_string(task.join("status")).unwrap();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!((line("Uid:"), line("Gid:")), (vec![UID.to_string().as_str(); 4], vec![GID.to_string().as_str(); 4]), "{status}");
        for (set, expected) in [("CapEff:", kept), ("CapPrm:", kept), ("CapInh:", NONE), ("CapAmb:", NONE)] {
            assert_eq!(line(set), [expected], "{set} {status}");
        }
        if world.mode == Mode::Sudo {
            assert_eq!(line("CapBnd:"), [NONE], "{status}");
        }
        threads += 1;
    }
    assert!(threads > 1, "the proxy's threads were not there yet");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
}

/// A directory and a file of root's, and what they looked like.
fn treasure(world: &World, mode: u32) -> (std::path::PathBuf, Vec<(String, u32, u32, String)>) {
    let directory = world.path("of-root");
    if !directory.exists() {
        fs::create_dir(&directory).unwrap();
        for name in ["audit.jsonl", "identity", "trace", "config.toml"] {
            fs::write(directory.join(name), "of root").unwrap();
        }
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    let seen = look(&directory);
    (directory, seen)
}

/// Name, owner, mode and content of everything there.
fn look(directory: &Path) -> Vec<(String, u32, u32, String)> {
    let mut seen: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, meta.uid(), meta.mode(), fs::read_to_string(entry.path()).unwrap_or_default())
        })
        .collect();
    seen.push((".".into(), fs::metadata(directory).unwrap().uid(), fs::metadata(directory).unwrap().mode(), String::new()));
    seen.sort();
    seen
}

fn link(target: &Path, at: &Path) {
    symlink(target, at).unwrap();
    lchown(at, Some(UID), Some(GID)).unwrap();
}

/// What the user could plant in the places that a run writes to.
fn links_to_files_of_root_lead_nowhere(world: &World) {
    succeeded(&world.inside(&["true"]));
    let home = world.home().join(".authsome");
    for mode in [0o700, 0o755] {
        let (of_root, before) = treasure(world, mode);
        for (place, target) in [("log", ""), ("log/audit.jsonl", "audit.jsonl"), ("vault", ""), ("ca", ""), ("config.toml", "config.toml")]
        {
            let (at, aside) = (home.join(place), home.join("aside"));
            let moved = fs::rename(&at, &aside).is_ok();
            link(&of_root.join(target), &at);
            let output = world.inside(&["cat", of_root.join("audit.jsonl").to_str().unwrap()]);
            assert_eq!(look(&of_root), before, "{place} {mode:o}: {}", show(&output));
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(mode == 0o755 || !said.contains("of root"), "{place}: {said}");
            fs::remove_file(&at).unwrap();
            if moved {
                fs::rename(&aside, &at).unwrap();
            }
        }
        let trace = world.home().join("trace");
        link(&of_root.join("trace"), &trace);
        for arguments in [&["--log-file", "trace", "list"][..], &["ca", "export", "--format", "pem", "-o", "trace"]] {
            let mut command = world.command(&[world.path("authsome").to_str().unwrap()]);
            command.args(arguments);
            let output = finish(&mut world.start_as_mode(command));
            assert_eq!(look(&of_root), before, "{arguments:?} {mode:o}: {}", show(&output));
        }
        fs::remove_file(&trace).unwrap();
        // The whole home.
        let aside = world.home().join("aside");
        fs::rename(&home, &aside).unwrap();
        link(&of_root, &home);
        let output = world.inside(&["true"]);
        assert_eq!(look(&of_root), before, "{mode:o}: {}", show(&output));
        fs::remove_file(&home).unwrap();
        fs::rename(&aside, &home).unwrap();
    }
}

/// A process of the user's exchanges the home for a link, again and again, while runs start.
fn links_exchanged_during_the_start_lead_nowhere(world: &World) {
    succeeded(&world.inside(&["true"]));
    let (of_root, before) = treasure(world, 0o755);
    let script = format!(
        "cd {}; ln -s {} link; while :; do mv .authsome real; mv -T link .authsome; mv -T .authsome link; mv real .authsome; done",
        world.home().display(),
        of_root.display()
    );
    let mut exchanging = Command::new("sh");
    exchanging.args(["-c", &script]).uid(UID).gid(GID).stdin(Stdio::null()).stderr(Stdio::null());
    let mut exchanging = exchanging.spawn().unwrap();
    for _ in 0..20 {
        let output = world.inside(&["true"]);
        assert_eq!(look(&of_root), before, "{}", show(&output));
    }
    let _ = (exchanging.kill(), exchanging.wait());
}

/// The marker is written where the path of the home led a moment before. It must not be by root's rights.
fn files_inside_are_made_with_the_users_rights(world: &World) {
    let client = ["sh", "-c", "find $HOME/.authsome -mindepth 1 ! -user agent; stat -c %U $HOME/.authsome/.authsome-run"];
    assert_eq!(succeeded(&world.inside(&client)), "agent\n");
}

/// As Docker and others leave it: forwarding dropped by default, and a chain for the administrator's own rules.
fn a_firewall_that_drops_forwarding_lets_the_uplink_through(world: &World) {
    if world.mode == Mode::Rootless {
        return;
    }
    let iptables = |arguments: &str| {
        let output = Command::new("iptables").args(arguments.split(' ')).output().expect("iptables (package iptables)");
        assert!(output.status.success(), "{arguments}: {}", show(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let echo = ["python3", "odd.py", "udp", "203.0.113.12", "7"];
    iptables("-P FORWARD DROP");
    for steps in [&[][..], &["-N DOCKER-USER", "-A FORWARD -j DOCKER-USER"], &["-A DOCKER-USER -p udp -j DROP"]] {
        steps.iter().for_each(|step| drop(iptables(step)));
        let before = iptables("-S");
        assert_eq!(succeeded(&world.inside(&echo)), "ping\n", "after {steps:?}");
        assert_eq!(iptables("-S"), before, "what was let through is taken back");
    }
}

/// What the supervisor needs of the user's variables, a copy of it made before must not keep: it shares the command's namespaces.
fn memory_of_the_first_process_holds_no_key(world: &World) {
    const KEY: &str = "sk-of-the-users-shell-0123456789";
    succeeded(&world.inside(&["true"]));
    let identity = fs::read_to_string(world.home().join(".authsome/vault/identity.txt")).unwrap();
    let master = identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    let mut command = world.authsome(&[], &["sh", "-c", "curl -fsS -o /dev/null https://api.openai.com/ && echo ready; read end"]);
    let mut child = command.env("OPENAI_API_KEY", KEY).env("AUTHSOME_MASTER_KEY", master).stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let children = |pid: &str| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().trim().to_owned();
    let supervisor = children(&child.id().to_string());
    let first = children(&supervisor);
    for secret in [master, KEY, OPENAI_KEY] {
        assert!(!memory_holds(&first, secret), "{secret} is in the first process");
    }
    assert!(memory_holds(&supervisor, master) && memory_holds(&supervisor, KEY), "the search is blind");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
}

/// Looks through everything that a process can write to (proc(5)).
fn memory_holds(pid: &str, text: &str) -> bool {
    use std::os::unix::fs::FileExt;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.starts_with("rw"))).any(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        memory.read_exact_at(&mut bytes, from).is_ok() && bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
