//! Asking for a secret on the terminal: not on stdin, which may be a pipe with something else in it.
use crate::secret::Secret;
use nix::sys::{
    signal::{SigSet, Signal},
    termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr},
};
use std::{
    fs::{File, OpenOptions},
    io::{Error, ErrorKind, Result},
};

/// Shows `prompt`, reads a line and shows a `*` for each character if `mask`. `Interrupted` and `UnexpectedEof`: the user gave up
/// (Ctrl-C, Ctrl-D). Other errors: there is no terminal.
pub fn ask(prompt: &str, mask: bool) -> Result<Secret<String>> {
    // Before the prompt: rpassword turns the echo off after it, and what is pasted in between would be shown.
    let _quiet = Quiet::new()?;
    // rpassword raises SIGINT for Ctrl-C; a process that dies of it leaves the terminal as it is, without echo.
    let interrupt = SigSet::from(Signal::SIGINT);
    interrupt.thread_block()?;
    let config = rpassword::ConfigBuilder::new();
    let config = if mask { config.password_feedback_mask('*') } else { config };
    let answer = rpassword::prompt_password_with_config(prompt, config.build()).map(Secret::new);
    match answer {
        // The signal is pending: it stays blocked, and the command ends with its own code.
        Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
        answer => interrupt.thread_unblock().map_err(Error::from).and(answer),
    }
}

/// The terminal without echo, until dropped.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn new() -> Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        // ISIG: Ctrl-C is read as what it is instead of ending everything in the foreground.
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(&terminal, SetArg::TCSANOW, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}
