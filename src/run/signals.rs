//! Signals of a run. The terminal delivers its own to the command; the supervisor passes on those somebody sent by kill(2).

use std::io;

use nix::{
    sys::signal::{SigSet, Signal},
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};

#[cfg_attr(not(target_os = "linux"), path = "signals/sent_elsewhere.rs")]
mod sent;

pub use sent::{Sent, Signals};

/// Passed on when sent by a process.
const FORWARDED: [Signal; 6] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
/// The terminal stops the whole foreground group; the supervisor stops itself only once the command has stopped, so that a command which
/// handles SIGTSTP keeps its proxy, and continuing has one order.
const STOPS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// Blocks every signal that a run handles; those it passes on.
fn block() -> nix::Result<SigSet> {
    let mut blocked = SigSet::from_iter(FORWARDED.into_iter().chain(STOPS));
    blocked.add(Signal::SIGCHLD);
    blocked.thread_block()?;
    Ok(SigSet::from_iter(FORWARDED))
}

/// Stops this process alone until somebody continues it.
pub fn stop_self() -> nix::Result<()> {
    nix::sys::signal::kill(Pid::this(), Signal::SIGSTOP)
}

/// Who had the terminal when the run began.
pub struct Terminal {
    foreground: Option<Pid>,
}

impl Terminal {
    pub fn save() -> Self {
        let ours = getpgrp();
        Self { foreground: tcgetpgrp(io::stdin()).ok().filter(|group| *group == ours) }
    }
}

impl Drop for Terminal {
    /// A shell inside took the foreground and could not give it back: our process group has no number in its PID namespace. SIGTTOU is blocked.
    fn drop(&mut self) {
        if let Some(group) = self.foreground
            && tcgetpgrp(io::stdin()).is_ok_and(|now| now != group)
        {
            let _ = tcsetpgrp(io::stdin(), group);
        }
    }
}
