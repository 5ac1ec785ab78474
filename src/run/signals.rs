//! Signals of a run. The terminal delivers its own to the command; the supervisor passes on those somebody sent by kill(2).

use std::io;

use nix::{
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};
use tokio::io::unix::AsyncFd;

/// Passed on when sent by a process.
const FORWARDED: [Signal; 6] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
/// The terminal stops the whole foreground group; the supervisor stops itself only once the command has stopped, so that a command which
/// handles SIGTSTP keeps its proxy, and continuing has one order.
const STOPS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// The supervisor's signals as a stream. Blocked before the clone: init inherits the mask, the command starts with an empty one.
pub struct Signals(SignalFd);

impl Signals {
    pub fn block() -> nix::Result<Self> {
        let forwarded = SigSet::from_iter(FORWARDED);
        let mut blocked = SigSet::from_iter(FORWARDED.into_iter().chain(STOPS));
        blocked.add(Signal::SIGCHLD);
        blocked.thread_block()?;
        Ok(Self(SignalFd::with_flags(&forwarded, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The deprecated constructor asks of the type that its descriptor never changes, as a signalfd's does not; its successor is `unsafe`.
    #[expect(deprecated)]
    pub fn watch(self) -> io::Result<AsyncFd<SignalFd>> {
        AsyncFd::new(self.0)
    }
}

/// The next signal that a process sent (`si_code` ≤ 0, sigaction(2)); those of the kernel the command has got itself.
pub async fn sent(signals: &AsyncFd<SignalFd>) -> io::Result<i32> {
    loop {
        let mut ready = signals.readable().await?;
        match signals.get_ref().read_signal()? {
            Some(info) if info.ssi_code <= 0 => return Ok(info.ssi_signo.cast_signed()),
            Some(_) => {}
            None => ready.clear_ready(),
        }
    }
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
