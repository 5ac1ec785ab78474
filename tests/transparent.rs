//! The command on the real kernel: real clients against real origins, as root and as a user without privilege.
//!
//! Each case runs in namespaces of its own, made by a thread of its own, and touches nothing of this machine's network. Where the kernel or the
//! user's rights forbid that, the cases are ignored with the reason; with AUTHSOME_REQUIRE_NETNS=1 that is a failure.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support {
    pub mod internet;
    pub mod origin;
    pub mod world;
}

mod cases {
    pub mod audit;
    pub mod canary;
    pub mod clients;
    pub mod containment;
    #[cfg(feature = "test-switches")]
    pub mod controls;
    pub mod death;
    pub mod environment;
    pub mod faults;
    pub mod grpc;
    pub mod hostile;
    pub mod interim;
    pub mod internet;
    pub mod kills;
    pub mod load;
    pub mod matrix;
    pub mod misdirection;
    pub mod names;
    pub mod packages;
    pub mod page;
    pub mod pasta;
    pub mod pinned;
    pub mod policy;
    pub mod probes;
    pub mod process;
    pub mod programs;
    pub mod relay;
    pub mod root;
    pub mod tcp_programs;
    pub mod transfers;
    pub mod trust;
    pub mod tunnel;
    pub mod upstream;
    pub mod upstream_proxy;
    pub mod websocket;
}

use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    process::{Command, ExitCode, Stdio},
    thread,
};
use support::world::{GID, Mode, UID, World};

/// A name, unique in its module, and what is done in the world.
pub type Case = (&'static str, fn(&World));

/// Every case of every module runs in both modes.
const MODULES: &[(&str, &[Case])] = &[
    ("internet", cases::internet::CASES),
    ("clients", cases::clients::CASES),
    ("relay", cases::relay::CASES),
    ("names", cases::names::CASES),
    ("page", cases::page::CASES),
    ("pasta", cases::pasta::CASES),
    ("pinned", cases::pinned::CASES),
    ("upstream", cases::upstream::CASES),
    ("misdirection", cases::misdirection::CASES),
    ("upstream_proxy", cases::upstream_proxy::CASES),
    ("policy", cases::policy::CASES),
    ("process", cases::process::CASES),
    ("programs", cases::programs::CASES),
    ("trust", cases::trust::CASES),
    ("matrix", cases::matrix::CASES),
    ("root", cases::root::CASES),
    ("audit", cases::audit::CASES),
    ("canary", cases::canary::CASES),
    ("containment", cases::containment::CASES),
    #[cfg(feature = "test-switches")]
    ("controls", cases::controls::CASES),
    ("probes", cases::probes::CASES),
    ("death", cases::death::CASES),
    ("faults", cases::faults::CASES),
    ("hostile", cases::hostile::CASES),
    ("load", cases::load::CASES),
    ("kills", cases::kills::CASES),
    ("environment", cases::environment::CASES),
    ("tunnel", cases::tunnel::CASES),
    ("grpc", cases::grpc::CASES),
    ("websocket", cases::websocket::CASES),
    ("packages", cases::packages::CASES),
    ("tcp_programs", cases::tcp_programs::CASES),
    ("transfers", cases::transfers::CASES),
    ("interim", cases::interim::CASES),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let modes = [("rootless", Mode::Rootless), ("sudo", Mode::Sudo)].map(|(name, mode)| (name, mode, obstacle(mode)));
    let required = std::env::var_os("AUTHSOME_REQUIRE_NETNS").is_some_and(|value| value == "1");
    let mut trials = Vec::new();
    for (mode_name, mode, obstacle) in modes {
        if let (Some(reason), false) = (&obstacle, arguments.list) {
            eprintln!("transparent {mode_name}: {}: {reason}", if required { "impossible" } else { "ignored" });
        }
        for (module, cases) in MODULES {
            for (name, case) in *cases {
                let obstacle = obstacle.clone();
                let ignored = obstacle.is_some() && !required;
                let run = move || obstacle.map_or_else(|| in_a_world(mode, *case), |reason| Err(reason.into()));
                trials.push(Trial::test(format!("{module}::{name}::{mode_name}"), run).with_ignored_flag(ignored));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Namespaces belong to a thread; the thread's end is theirs, whatever the case did.
fn in_a_world(mode: Mode, case: fn(&World)) -> Result<(), Failed> {
    let thread = thread::spawn(move || case(&World::new(mode)));
    thread.join().map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failed::from(text.unwrap_or_else(|| "panicked".into()))
    })
}

/// Why this mode cannot be tried here.
fn obstacle(mode: Mode) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("the test's own networks need root (try sudo -E scripts/test)".into());
    }
    let (uid, gid) = (UID.to_string(), GID.to_string());
    let unshare: &[&str] = match mode {
        Mode::Sudo => &["unshare", "--net", "--mount", "--pid", "--fork", "true"],
        Mode::Rootless => &[
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &gid,
            "--clear-groups",
            "unshare",
            "--user",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "true",
        ],
    };
    match Command::new(unshare[0]).args(&unshare[1..]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("{}: {error}", unshare[0])),
    }
}
