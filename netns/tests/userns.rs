//! The probe names the gate that is really closed; and the namespaces a sandbox is made of do what they say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use harness::inside;
use netns::{
    NetNs,
    ruleset::Ruleset,
    spawn::{Ids, Namespaces},
    userns::probe,
};
use nix::mount::{MsFlags, mount};
use std::{fs, os::unix::fs::MetadataExt, panic, process::ExitCode};

const CASES: &[(&str, harness::Case)] = &[
    ("an_open_system_passes", an_open_system_passes),
    ("a_limit_of_zero_is_named", a_limit_of_zero_is_named),
    ("a_chroot_is_named", a_chroot_is_named),
    ("a_covered_proc_is_named", a_covered_proc_is_named),
    ("a_thread_comes_back_from_a_namespace", a_thread_comes_back_from_a_namespace),
];

fn main() -> ExitCode {
    harness::main(CASES)
}

fn no_rules() -> Ruleset {
    Ruleset { tables: Vec::new() }
}

/// What the probe of a user namespace says where `close` has closed a gate, and what opens it.
fn closed(namespaces: Namespaces, close: impl FnOnce()) -> String {
    inside(namespaces, || {
        close();
        let gate = probe(Namespaces { user: Some(Ids::current()) }, &no_rules()).unwrap_err();
        format!("{gate} -> {}", gate.opens_with().unwrap_or_default())
    })
}

fn mount_on(kind: &str, path: &str) {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>).unwrap();
}

fn an_open_system_passes(namespaces: Namespaces) {
    probe(namespaces, &no_rules()).unwrap();
}

/// The limit is that of a user namespace made for it, never the machine's.
fn a_limit_of_zero_is_named(_: Namespaces) {
    let said = closed(Namespaces { user: Some(Ids::current()) }, || fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap());
    let expected = "create user, network, mount, PID and IPC namespaces: ENOSPC: No space left on device; user.max_user_namespaces is 0 \
                    -> sudo sysctl -w user.max_user_namespaces=10000";
    assert_eq!(said, expected);
}

fn a_chroot_is_named(namespaces: Namespaces) {
    let said = closed(namespaces, || {
        mount_on("tmpfs", "/tmp");
        fs::create_dir_all("/tmp/root/proc").unwrap();
        mount_on("proc", "/tmp/root/proc");
        nix::unistd::chroot("/tmp/root").unwrap();
    });
    let expected = "create user, network, mount, PID and IPC namespaces: EPERM: Operation not permitted; \
                    this process is in a chroot (no / in /proc/self/mountinfo) -> ";
    assert_eq!(said, expected);
}

fn a_covered_proc_is_named(namespaces: Namespaces) {
    let said = closed(namespaces, || mount_on("tmpfs", "/proc/irq"));
    let expected = "mount a fresh proc: EPERM: Operation not permitted; /proc/irq is mounted over, as in a container \
                    -> docker run --security-opt systempaths=unconfined …";
    assert_eq!(said, expected);
}

fn a_thread_comes_back_from_a_namespace(namespaces: Namespaces) {
    let said = inside(namespaces, || {
        let here = || fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let home = here();
        let other = NetNs::new().unwrap();
        assert_eq!(here(), home, "new() moved the caller");
        let there = other.run(here).unwrap();
        assert_eq!(other.run(|| NetNs::current().unwrap().run(here).unwrap()).unwrap(), there);
        let unwound = panic::catch_unwind(panic::AssertUnwindSafe(|| other.run(|| panic!("on purpose"))));
        assert!(there != home && unwound.is_err());
        assert_eq!(here(), home, "still inside");
        "back".into()
    });
    assert_eq!(said, "back");
}
