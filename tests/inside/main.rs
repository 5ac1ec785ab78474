//! What a program finds inside the sandbox, on the real kernel: masks, trust and the locked-down kernel interface.
//!
//! Each test starts this program again to enter namespaces of its own (a process with threads cannot), see [`stage`].
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test program")]

use std::process::ExitCode;

mod kernel;
mod masks;
mod programs;
mod stage;
mod trust;

fn main() -> ExitCode {
    if let Some(code) = stage::run_if_asked() {
        return code;
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let closed = stage::closed_gate();
    let trials = [kernel::trials(), masks::trials(), trust::trials(), programs::trials()].into_iter().flatten();
    let required = std::env::var_os("AUTHSOME_REQUIRE_NETNS").is_some();
    if let Some(reason) = &closed {
        eprintln!("this machine does not allow the sandbox: {reason}");
    }
    let ignored = closed.is_some() && !required;
    libtest_mimic::run(&arguments, trials.map(|trial| trial.with_ignored_flag(ignored)).collect()).exit_code()
}
