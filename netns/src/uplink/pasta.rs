//! A way out without privilege: pasta(1) of the passt project carries UDP and ICMP between a tap device in the namespace and sockets of its own
//! outside. It carries no TCP and reaches neither the host's loopback nor, without ports to forward, the namespace from outside.
//!
//! pasta joins the namespace's user namespace, which makes the kernel forget any parent-death signal (commit_creds, kernel/cred.c). So a process
//! of ours holds it: it waits for the end of its channel, which comes however its maker ends, and then kills pasta. Where the holder itself is
//! killed its maker does that, by the pidfd it was given.

use std::{
    fs::File,
    io::{self, Read},
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process::{self, Command, Stdio},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
    unistd::Pid,
};

use super::{Inner, Side, address::Pair};
use crate::{
    error::Error,
    link::{self, IpNet},
    spawn::{self, Channel, Child},
    sys,
};

/// The tap device's name inside.
pub const LINK: &str = "pasta";
/// The most that pasta takes, octets (`--mtu` in pasta(1)). It knows no IP fragments, so a datagram must fit.
pub const MTU: u32 = 65520;
/// What the holder says when the device is there, with pasta's pidfd; anything else it says is why there is none.
const READY: [u8; 1] = [0];
/// What the holder says first where it has stopped pasta; the address follows.
const STOPPED: u8 = 1;
/// Octets kept of what pasta says on stderr.
const WORDS: usize = 4096;
/// How lines on stderr begin that only say that there is no system logger.
const NO_LOGGER: &str = "Failed to send";

#[derive(Debug, thiserror::Error)]
pub enum PastaError {
    #[error(transparent)]
    Netns(#[from] Error),
    /// In pasta's own words.
    #[error("connect the namespace by pasta: {0}")]
    Refused(String),
}

/// A running pasta. Dropping it ends pasta and waits until it has ended.
#[derive(Debug)]
pub struct Pasta {
    holder: Child,
    pidfd: OwnedFd,
    inner: Inner,
}

impl Pasta {
    /// From the calling thread's namespace into that of `into`, which is a process in a user namespace of the caller's. Returns when the device is
    /// there. The calling process must have one thread only, and a copy of it stays as long as pasta runs.
    ///
    /// `barred` are the networks that the namespace's rules keep it from, among them this host's addresses; none: nothing is. Once this host has an
    /// address that is in none of them, pasta carries nothing any more: the rules can no longer be changed, and it would reach the host by it.
    pub fn start(program: &Path, into: Pid, barred: &[IpNet]) -> Result<Self, PastaError> {
        let (v4, v6) = Pair::free()?;
        let v6 = if link::has_default_route(true)? { v6 } else { None };
        let side = |pair: Pair| Side { addr: pair.inner, gateway: pair.outer.addr };
        let inner = Inner { link: LINK.to_owned(), v4: side(v4), v6: v6.map(side) };
        let mut command = command(program, &inner, into);
        let holder = spawn::copy(|channel| hold(&channel, &mut command, barred))?;
        let (word, pidfd) = match holder.channel.recv() {
            Ok(Some((word, fds))) => (text(&word), fds.into_iter().next()),
            Ok(None) => ("no answer".to_owned(), None),
            Err(error) => (error.to_string(), None),
        };
        match pidfd {
            Some(pidfd) => Ok(Self { holder, pidfd, inner }),
            None => Err(PastaError::Refused(word)),
        }
    }

    /// For the inner namespace.
    pub const fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The address for which it carries nothing any more, or the error that says why it has ended. Waits for either; `as_fd` is readable then.
    pub fn stopped_for(&self) -> io::Result<String> {
        let (word, _) = self.holder.channel.recv()?.ok_or_else(|| io::Error::other("its holder was killed"))?;
        match word.split_first() {
            Some((&STOPPED, address)) => Ok(text(address)),
            _ => Err(io::Error::other(text(&word))),
        }
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        // Before the holder itself is dropped, and thus killed: it has yet to kill.
        self.holder.channel.end();
        let _ = self.holder.reap();
        // A holder that was killed has not.
        if sys::pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL).is_ok() {
            let _ = poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        }
    }
}

impl AsFd for Pasta {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.holder.channel.as_fd()
    }
}

/// The environment stays here: it may hold anything. Without `--foreground` it would leave its holder; its standard output is the file it writes its
/// number to once it is at work.
fn command(program: &Path, inner: &Inner, into: Pid) -> Command {
    let mut command = Command::new(program);
    command.args(["--foreground", "--quiet", "--pid", "/proc/self/fd/1"]);
    command.args(["--no-tcp", "--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ra"]);
    command.args(["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]);
    command.args(["--ns-ifname", &inner.link, "--netmask", &inner.v4.addr.prefix.to_string()]);
    for side in [Some(inner.v4), inner.v6].into_iter().flatten() {
        command.args(["--address", &side.addr.addr.to_string(), "--gateway", &side.gateway.to_string()]);
    }
    if inner.v6.is_none() {
        command.arg("--ipv4-only");
    }
    command.args(["--userns", &format!("/proc/{into}/ns/user"), "--netns", &format!("/proc/{into}/ns/net")]);
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The holder's whole life. The maker says nothing on the channel, so whatever happens there is its end.
fn hold(channel: &Channel, command: &mut Command, barred: &[IpNet]) -> u8 {
    match until_an_end(channel, command, barred) {
        Ok(None) => 0,
        Ok(Some(words)) => {
            let _ = channel.send(words.as_bytes(), &[]);
            1
        }
        Err(error) => {
            let program = Path::new(command.get_program()).display().to_string();
            let _ = channel.send(format!("{program}: {error}").as_bytes(), &[]);
            1
        }
    }
}

/// Pasta's last words if it ended first.
fn until_an_end(channel: &Channel, command: &mut Command, barred: &[IpNet]) -> io::Result<Option<String>> {
    crate::close_on_exec_from(3).map_err(|error| io::Error::from(error.source))?;
    let mut pasta = command.spawn()?;
    let ended = watch(channel, &mut pasta, barred);
    // It fails only where it has ended.
    let _ = pasta.kill();
    let status = pasta.wait()?;
    Ok(ended?.map(|words| if words.is_empty() { status.to_string() } else { words }))
}

/// Tells when pasta is at work and when it is stopped, and returns with the channel (`None`) or with pasta.
fn watch(channel: &Channel, pasta: &mut process::Child, barred: &[IpNet]) -> io::Result<Option<String>> {
    let pidfd = sys::pidfd_open(pasta)?;
    let (Some(stdout), Some(stderr)) = (pasta.stdout.take(), pasta.stderr.take()) else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let (mut stdout, mut stderr) = (File::from(OwnedFd::from(stdout)), File::from(OwnedFd::from(stderr)));
    let failed = |error: Error| io::Error::other(error);
    let addresses = link::watch_addresses().map_err(failed)?;
    // One may have come since the rules were made.
    let mut changed = true;
    let (mut ready, mut stopped, mut said, mut buffer) = (false, barred.is_empty(), Vec::new(), [0; 512]);
    loop {
        if ready
            && mem::take(&mut changed)
            && !stopped
            && let Some(address) =
                link::addresses().map_err(failed)?.into_iter().find(|address| !barred.iter().any(|net| net.contains(*address)))
        {
            // Not killed: without its device the namespace has no route, and what is redirected goes nowhere.
            sys::pidfd_send_signal(pidfd.as_fd(), Signal::SIGSTOP)?;
            channel.send(&[&[STOPPED], address.to_string().as_bytes()].concat(), &[])?;
            stopped = true;
        }
        let seen = {
            let on = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = [on(channel.as_fd()), on(stderr.as_fd()), on(addresses.as_fd()), on(stdout.as_fd())];
            let watched = if ready { 3 } else { 4 };
            match poll(&mut fds[..watched], PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            fds.map(|fd| fd.any() == Some(true))
        };
        match seen {
            [true, ..] => return Ok(None),
            [_, true, ..] => match stderr.read(&mut buffer)? {
                0 => return Ok(Some(words(&said))),
                length => said.extend(buffer[..length].iter().take(WORDS - said.len())),
            },
            [_, _, true, _] => {
                addresses.changed(PollTimeout::ZERO).map_err(|refusal| io::Error::from(refusal.errno))?;
                changed = true;
            }
            [.., true] if stdout.read(&mut buffer)? > 0 => {
                ready = true;
                channel.send(&READY, &[pidfd.as_fd()])?;
            }
            // It has closed its output unready: its error output ends as well.
            _ => ready = true,
        }
    }
}

fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

/// `Failed to open tun socket in namespace`
fn words(said: &[u8]) -> String {
    let said = text(said);
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(NO_LOGGER)).collect();
    lines.join("; ")
}
