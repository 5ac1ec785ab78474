//! PID 1 of the sandbox: prepares the namespaces from inside, gives up every privilege, starts the command and reaps.
//!
//! It is a clone of the supervisor that never execs, so everything here runs before the supervisor has held a secret.

use std::{
    ffi::{CString, OsStr, OsString},
    fmt,
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::{fd::AsFd, unix::process::CommandExt},
    panic,
    path::Path,
    process::Command,
    thread,
    time::Instant,
};

use netns::{
    link::{self, IpNet},
    uplink::pasta,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        socket::{AddressFamily, SockFlag, SockType, socket},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{defence::Defence, vault::KeySource};

use super::{
    common::{self, GRACE},
    harden::{self, CoreLimit},
    mask,
    message::{Configure, Event, Init, Request},
    plan::{Egress, Plan},
    rules,
    trust::{Authority, Database, LeftAlone, Trust},
};

/// An address for hosts that have none of their own: the IPv4 dummy address (RFC 7600 §4.8, IANA special-purpose registry). Nothing else can have it.
const DUMMY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// A unique local address (RFC 4193) with a fixed random global id; it exists only on the sandbox's `lo`.
const DUMMY_V6: Ipv6Addr = Ipv6Addr::new(0xfd8b, 0x3a5e, 0x91c4, 0, 0, 0, 0, 8);

/// What could not be done inside, in words that survive the channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub action: String,
    /// 0: the text says it all.
    pub errno: i32,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            0 => f.write_str(&self.action),
            errno => write!(f, "{}: {}", self.action, Errno::from_raw(errno)),
        }
    }
}

impl From<netns::Error> for Failure {
    fn from(error: netns::Error) -> Self {
        Self { action: error.action, errno: error.source as i32 }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::text(error)
    }
}

impl Failure {
    pub fn text(error: impl fmt::Display) -> Self {
        Self { action: error.to_string(), errno: 0 }
    }

    fn at(action: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { action: action.to_owned(), errno: errno as i32 }
    }
}

/// PID 1's whole life; the exit status means nothing to the supervisor, which goes by what is said on the channel.
pub fn main(init: Init, plan: &Plan) -> u8 {
    let ready = match prepare(&init, plan) {
        Ok(Some(ready)) => ready,
        Ok(None) => return 1,
        Err(failure) => {
            // An error here means that nobody is left to tell.
            let _ = init.failed(failure);
            return 1;
        }
    };
    match start(plan, &ready) {
        Ok(command) => supervise(&init, command),
        Err(error) => {
            let _ = init.event(Event::NotStarted(error.raw_os_error().unwrap_or(Errno::ENOENT as i32)));
        }
    }
    0
}

/// Variables that name the run's trust.
type TrustVariables = Vec<(&'static str, OsString)>;

/// What is left for the command itself.
struct Ready {
    trust: TrustVariables,
    core: CoreLimit,
}

/// Everything up to "go". `None`: the supervisor is gone.
fn prepare(init: &Init, plan: &Plan) -> Result<Option<Ready>, Failure> {
    forget_secrets(plan)?;
    let Some((configure, Files { trust, mut left_alone, database })) = redirect_meanwhile(init, plan)? else { return Ok(None) };
    // Not before the redirect is in force.
    network(&configure, plan)?;
    harden::drop_bounding_set().map_err(Failure::text)?;
    plan.identity.assume().map_err(Failure::at("become the invoking user"))?;
    let core = harden::lock_down(&plan.defences).map_err(Failure::text)?;
    // Only now: every change of credentials clears it (PR_SET_PDEATHSIG(2const)). A supervisor that died before shows as end of file below.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(Failure::at("set the parent-death signal"))?;
    if Defence::CloseDescriptors.active() {
        netns::close_on_exec_from(3).map_err(Failure::text)?;
    }
    // Again by path: what is mounted now is what the command gets.
    let enter = |error| Failure::text(format!("enter the working directory {}: {error}", plan.cwd.display()));
    std::env::set_current_dir(&plan.cwd).map_err(enter)?;
    left_alone.extend(database.and_then(|database| database.extend().err()));
    init.prepared(left_alone.iter().map(ToString::to_string).collect())?;
    Ok(init.go().map(|()| Ready { trust, core }))
}

/// The user's environment came along with the copy. The command gets one of its own.
fn forget_secrets(plan: &Plan) -> Result<(), Failure> {
    let of_providers = plan.connected.iter().flat_map(|connected| {
        let provider = &connected.provider;
        provider.exports.iter().map(|export| export.variable.as_str()).chain(provider.env_var.as_deref())
    });
    let names = of_providers.chain([KeySource::TEXT_VARIABLE]).filter_map(|name| CString::new(name).ok());
    Ok(netns::wipe_variables(names)?)
}

/// Binds the listeners on addresses of the namespace alone and hands them out.
fn listen(init: &Init, plan: &Plan) -> Result<(), Failure> {
    link::up("lo")?;
    let v6 = Path::new("/proc/sys/net/ipv6").exists();
    if plan.egress == Egress::Relay {
        link::add_address("lo", IpNet { addr: DUMMY_V4.into(), prefix: 32 })?;
        if v6 {
            link::add_address("lo", IpNet { addr: DUMMY_V6.into(), prefix: 128 })?;
        }
        link::add_default_route("lo", None)?;
    }
    let addresses: &[Ipv6Addr] = if v6 { &[Ipv6Addr::LOCALHOST] } else { &[] };
    let at = |port: u16| {
        let v4 = std::iter::once(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        v4.chain(addresses.iter().map(move |ip| SocketAddr::from((*ip, port))))
    };
    let tcp = at(rules::LISTENER).chain(at(rules::DNS)).map(TcpListener::bind).collect::<io::Result<Vec<_>>>();
    let udp = at(rules::DNS).map(UdpSocket::bind).collect::<io::Result<Vec<_>>>();
    let (tcp, udp) = tcp.and_then(|tcp| Ok((tcp, udp?))).map_err(|error| Failure::text(format!("bind the listeners: {error}")))?;
    let namespace = File::open("/proc/self/ns/net").map_err(|error| Failure::text(format!("open /proc/self/ns/net: {error}")))?;
    let mut fds = vec![namespace.as_fd()];
    fds.extend(tcp.iter().map(AsFd::as_fd));
    fds.extend(udp.iter().map(AsFd::as_fd));
    init.listening(&fds, v6)?;
    plan.expose.iter().try_for_each(|port| {
        let sockets = at(*port).map(TcpListener::bind).collect::<io::Result<Vec<_>>>();
        let sockets = sockets.map_err(|error| Failure::text(format!("bind exposed port {port} inside: {error}")))?;
        Ok(init.exposed(&sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>())?)
    })
}

/// The rules take the kernel a while, and neither the listeners nor the files depend on them.
fn redirect_meanwhile(init: &Init, plan: &Plan) -> Result<Option<(Configure, Files)>, Failure> {
    thread::scope(|scope| {
        let redirecting = thread::Builder::new().spawn_scoped(scope, || redirect(plan));
        let redirecting = redirecting.map_err(|error| Failure::text(format!("start a thread: {error}")))?;
        listen(init, plan)?;
        let Some(configure) = init.configure() else { return Ok(None) };
        let files = files(plan, &configure)?;
        redirecting.join().unwrap_or_else(|panic| panic::resume_unwind(panic))?;
        Ok(Some((configure, files)))
    })
}

fn redirect(plan: &Plan) -> Result<(), Failure> {
    if Defence::Redirect.active() {
        plan.rules().create()?;
    }
    Ok(())
}

fn network(configure: &Configure, plan: &Plan) -> Result<(), Failure> {
    if let Some(uplink) = &configure.uplink {
        let inner: netns::uplink::Inner = uplink.parse().map_err(Failure::text)?;
        if matches!(plan.egress, Egress::Pasta(_)) {
            link::set_mtu(pasta::LINK, pasta::MTU)?;
        }
        inner.configure()?;
        // The uplink carries ICMP, and with no_new_privs ping's file capability is inert (icmp(7), ping_group_range).
        // No other group is known in a user namespace.
        let gid = plan.identity.gid;
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{gid} {gid}"))
            .map_err(|error| Failure::text(format!("set ping_group_range: {error}")))?;
    }
    Ok(())
}

/// The private view of the file system, and what of it will not trust the run's certificates.
struct Files {
    trust: TrustVariables,
    left_alone: Vec<LeftAlone>,
    database: Option<Database>,
}

fn files(plan: &Plan, configure: &Configure) -> Result<Files, Failure> {
    if Defence::FilesAsUser.active() {
        plan.identity.assume_for_files().map_err(Failure::at("use files as the invoking user"))?;
    }
    if Defence::OwnProc.active() {
        mask::mount_proc().map_err(Failure::text)?;
    }
    let covered = plan.survey.apply().map_err(Failure::text)?;
    let authority = Authority { pem: &configure.certificate, common_name: &configure.common_name };
    let mut trust = Trust::write(covered.home(), authority, &|name| std::env::var_os(name)).map_err(Failure::text)?;
    let mut left_alone = trust.mount().map_err(Failure::text)?;
    let database = trust.mount_database(&plan.identity).unwrap_or_else(|not| {
        left_alone.push(not);
        None
    });
    covered.finish().map_err(Failure::text)?;
    Ok(Files { trust: trust.variables().to_vec(), left_alone, database })
}

/// Starts the command with the user's environment, in the caller's process group and session.
fn start(plan: &Plan, ready: &Ready) -> io::Result<Pid> {
    // The command keeps its own limit. PID 1 needs none: it is not dumpable.
    ready.core.restore().map_err(io::Error::other)?;
    let command = |program: &OsStr| {
        let mut command = Command::new(program);
        command.env_clear().envs(&plan.environment).envs(ready.trust.iter().map(|(name, value)| (name, value)));
        command
    };
    // To call execvp itself, std forks, and a fork copies what posix_spawn(3) leaves alone.
    let found = common::found(&plan.command, &plan.environment);
    // The command starts with the mask the user's shell gave us. Afterwards ours again, before anything is looked at: see `follow`.
    let ours = plan.signal_mask.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = match command(&found).arg0(&plan.command).args(&plan.arguments).spawn() {
        // As execvp(3) does: a file that is executable but has no known format is a shell script.
        Err(error) if error.raw_os_error() == Some(Errno::ENOEXEC as i32) => {
            command("/bin/sh".as_ref()).arg(&found).args(&plan.arguments).spawn()
        }
        // It says why not.
        Err(_) if found != plan.command => command(&plan.command).args(&plan.arguments).spawn(),
        result => result,
    };
    ours.thread_set_mask()?;
    started.map(|child| Pid::from_raw(child.id().cast_signed()))
}

/// Reaps, passes signals on, and reports until the command ends or the supervisor is gone; then ends what is left.
fn supervise(init: &Init, command: Pid) {
    if init.event(Event::Started).is_ok() {
        let _ = follow(init, command);
    }
    if end_leftovers() {
        let _ = init.event(Event::Alone);
    }
}

fn follow(init: &Init, command: Pid) -> nix::Result<()> {
    // Blocked since before the clone (see `signals`); nothing is lost between the spawn and here.
    let children = SignalFd::with_flags(&SigSet::from_iter([Signal::SIGCHLD]), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    loop {
        while let Some(event) = reap(command)? {
            if init.event(event).is_err() || matches!(event, Event::Exited(_) | Event::Killed(_)) {
                return Ok(());
            }
        }
        let mut fds = [PollFd::new(children.as_fd(), PollFlags::POLLIN), PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        if fds[1].any() == Some(true) {
            match init.request() {
                None => return Ok(()),
                Some(Request::Signal(signal)) => {
                    // It may have ended in between.
                    let _ = kill(command, Signal::try_from(signal)?);
                }
                Some(Request::Socket { v6 }) => {
                    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
                    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
                    if init.socket(socket.as_ref().map(AsFd::as_fd).map_err(|errno| *errno as i32)).is_err() {
                        return Ok(());
                    }
                }
            }
        }
        while children.read_signal()?.is_some() {}
    }
}

/// The next change of a child's state that the supervisor should hear of.
fn reap(command: Pid) -> nix::Result<Option<Event>> {
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Err(Errno::EINTR) => continue,
            status => status?,
        };
        match status {
            WaitStatus::Exited(pid, code) if pid == command => return Ok(Some(Event::Exited(code as u8))),
            WaitStatus::Signaled(pid, signal, _) if pid == command => return Ok(Some(Event::Killed(signal as i32))),
            WaitStatus::Stopped(pid, _) if pid == command => return Ok(Some(Event::Stopped)),
            _ => {}
        }
    }
}

/// SIGTERM for everyone else in the PID namespace, two seconds, and then PID 1's own end is SIGKILL for the rest (pid_namespaces(7)).
/// Whether nobody is left.
fn end_leftovers() -> bool {
    let everyone = Pid::from_raw(-1);
    if let Err(errno) = kill(everyone, Signal::SIGTERM) {
        return errno == Errno::ESRCH;
    }
    let _ = kill(everyone, Signal::SIGCONT);
    let deadline = Instant::now() + GRACE;
    let Ok(children) = SignalFd::with_flags(&SigSet::from_iter([Signal::SIGCHLD]), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK) else {
        return false;
    };
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(errno) => return errno == Errno::ECHILD,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = PollTimeout::try_from(left) else { return false };
        let mut fds = [PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        if left.is_zero() || matches!(poll(&mut fds, timeout), Ok(0)) {
            return false;
        }
        while matches!(children.read_signal(), Ok(Some(_))) {}
    }
}
