//! Starting the first process of new namespaces: `clone` into them, talk over a socket, die together.

use crate::{
    error::{Context, Error, Result},
    sys::{self, Fork},
};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::CloneFlags,
    sys::{
        prctl,
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Gid, Pid, Uid},
};
use std::{
    fmt, fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

mod channel;

pub use channel::{Channel, MAX_FDS, MAX_MESSAGE};

/// Status of a process whose `init` panicked: the one Rust programs end with.
const PANICKED: u8 = 101;

/// First message of a child that is set up; anything else is a [`Failure`].
const READY: [u8; 1] = [0];

/// Which namespaces the new process is the first of. Network, mount, PID and IPC always; user only where asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces {
    /// `Some(ids)`: also a user namespace in which exactly these ids stand for themselves (user_namespaces(7)). `None`: needs CAP_SYS_ADMIN.
    pub user: Option<Ids>,
}

/// The invoking process's effective ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
}

/// The first process (PID 1 inside) of the new namespaces. Dropping it ends the channel and kills it, and the kernel everything inside with it.
#[derive(Debug)]
pub struct Child {
    pub channel: Channel,
    pid: Pid,
    pidfd: OwnedFd,
}

/// Clones the calling (single-threaded) process into new namespaces. In the child, maps are written and `init` runs with every capability over
/// the new namespaces; what it returns is the exit status, a panic is status 101. The child's end of the channel is CLOEXEC.
/// Errors if the process has more than one thread.
///
/// The mounts inside are private: none made there is seen outside. The child is killed when the calling *thread* ends (PR_SET_PDEATHSIG,
/// prctl(2)). A change of the child's ids clears that, and the parent must still have the right to signal it (kill(2)): where either changes ids,
/// `init` asks for the signal again, and watches its channel, which ends with the parent whatever their ids are.
pub fn spawn(namespaces: Namespaces, init: impl FnOnce(Channel) -> u8) -> Result<Child> {
    start(namespaces, init).map_err(Error::from)
}

/// A copy of the calling (single-threaded) process that runs `body` and outlives its maker; the end of the channel tells that. What `body` returns
/// is the exit status, a panic is status 101.
pub(crate) fn copy(body: impl FnOnce(Channel) -> u8) -> Result<Child> {
    require_one_thread().map_err(Error::from)?;
    let (ours, its) = Channel::pair()?;
    match sys::fork_into(CloneFlags::empty()).context(|| "fork".into())? {
        Fork::Parent { pid, pidfd } => Ok(Child { channel: ours, pid, pidfd }),
        Fork::Child => {
            drop(ours);
            sys::exit_now(catch_unwind(AssertUnwindSafe(|| body(its))).unwrap_or(PANICKED))
        }
    }
}

/// [`spawn`], with the step that failed as a value.
pub(crate) fn start(namespaces: Namespaces, init: impl FnOnce(Channel) -> u8) -> std::result::Result<Child, Failure> {
    require_one_thread()?;
    let (outside, inside) = Channel::pair().map_err(|error| Failure { step: Step::Channel, errno: error.source })?;
    match sys::fork_into(namespaces.flags()).map_err(namespaces.creation().failed())? {
        Fork::Parent { pid, pidfd } => {
            drop(inside);
            let child = Child { channel: outside, pid, pidfd };
            child.await_ready()?;
            Ok(child)
        }
        Fork::Child => {
            drop(outside);
            let first = AssertUnwindSafe(|| first_process(namespaces, inside, init));
            sys::exit_now(catch_unwind(first).unwrap_or(PANICKED))
        }
    }
}

/// A lock that another thread holds at the moment of the clone stays locked in the child for ever, so there may be none.
pub(crate) fn require_one_thread() -> std::result::Result<(), Failure> {
    // The kernel lists a thread for a moment after it was joined: it wakes the joiner (CLONE_CHILD_CLEARTID, clone(2)) before it removes the entry.
    const LOOKS: u32 = 50;
    const BETWEEN: Duration = Duration::from_millis(1);
    for _ in 0..LOOKS {
        let threads = fs::read_dir("/proc/self/task").map_err(|error| Failure { step: Step::ListThreads, errno: errno_of(&error) })?;
        if threads.count() == 1 {
            return Ok(());
        }
        thread::sleep(BETWEEN);
    }
    Err(Failure { step: Step::Threads, errno: Errno::EINVAL })
}

fn first_process(namespaces: Namespaces, channel: Channel, init: impl FnOnce(Channel) -> u8) -> u8 {
    let said = match prepare(namespaces, &channel) {
        Ok(()) => channel.send(&READY, &[]),
        Err(failure) => channel.send(&failure.encode(), &[]).and(Err(io::ErrorKind::Other.into())),
    };
    if said.is_ok() { init(channel) } else { 1 }
}

fn prepare(namespaces: Namespaces, channel: &Channel) -> std::result::Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(Step::ParentDeath.failed())?;
    // Had the parent ended before that call, no signal would come; getppid(2) is 0 in a new PID namespace and tells nothing.
    if channel.is_closed().map_err(Step::ParentDeath.failed())? {
        return Err(Failure { step: Step::ParentDeath, errno: Errno::ESRCH });
    }
    if let Some(Ids { uid, gid }) = namespaces.user {
        // Without CAP_SETGID outside, a gid may be mapped only once setgroups(2) is given up (user_namespaces(7)).
        write_proc("/proc/self/setgroups", "deny").map_err(Step::Setgroups.failed())?;
        write_proc("/proc/self/uid_map", &format!("{uid} {uid} 1")).map_err(Step::UidMap.failed())?;
        write_proc("/proc/self/gid_map", &format!("{gid} {gid} 1")).map_err(Step::GidMap.failed())?;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).map_err(Step::PrivateMounts.failed())
}

fn write_proc(path: &str, text: &str) -> std::result::Result<(), Errno> {
    fs::write(path, text).map_err(|error| errno_of(&error))
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

impl Namespaces {
    fn flags(self) -> CloneFlags {
        let always = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
        if self.user.is_some() { always | CloneFlags::CLONE_NEWUSER } else { always }
    }

    fn creation(self) -> Step {
        if self.user.is_some() { Step::CreateWithUser } else { Step::Create }
    }
}

impl Ids {
    /// Those of the calling process.
    pub fn current() -> Self {
        Self { uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() }
    }
}

impl Child {
    /// Outside pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable when the child has ended (pidfd_open(2)).
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// ESRCH when it has ended.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        sys::pidfd_send_signal(self.pidfd(), signal).context(|| format!("send {signal} to process {}", self.pid))
    }

    /// Waits for the end and reaps. The channel stays open until then.
    pub fn wait(self) -> Result<WaitStatus> {
        self.reap().context(|| format!("wait for process {}", self.pid))
    }

    pub(crate) fn reap(&self) -> nix::Result<WaitStatus> {
        loop {
            match waitid(Id::PIDFd(self.pidfd()), WaitPidFlag::WEXITED) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    fn await_ready(&self) -> std::result::Result<(), Failure> {
        match self.channel.recv() {
            Ok(Some((message, _))) if message == READY => Ok(()),
            Ok(Some((message, _))) => Err(Failure::decode(&message).unwrap_or(Failure { step: Step::Start, errno: Errno::EBADMSG })),
            Ok(None) => Err(Failure { step: Step::Start, errno: Errno::EPIPE }),
            Err(error) => Err(Failure { step: Step::Start, errno: errno_of(&error) }),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A child that became another user's cannot be signalled (EPERM, kill(2)); the end of its channel reaches it all the same.
        self.channel.end();
        // These fail when `wait` has reaped it: a pidfd never means another process.
        let _ = self.kill(Signal::SIGKILL);
        let _ = self.reap();
    }
}

/// What a new process goes through; the order is that of the attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    ListThreads = 1,
    Threads,
    Channel,
    Create,
    CreateWithUser,
    Start,
    ParentDeath,
    Setgroups,
    UidMap,
    GidMap,
    PrivateMounts,
}

/// A step and the kernel's answer; travels from the child to the parent as a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub step: Step,
    pub errno: Errno,
}

impl Step {
    /// Those that happen in the child.
    const INSIDE: [Self; 5] = [Self::ParentDeath, Self::Setgroups, Self::UidMap, Self::GidMap, Self::PrivateMounts];

    fn failed(self) -> impl FnOnce(Errno) -> Failure {
        move |errno| Failure { step: self, errno }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ListThreads => "list the threads of this process in /proc/self/task",
            Self::Threads => "clone a process that has more than one thread",
            Self::Channel => "create a socket pair",
            Self::Create => "create network, mount, PID and IPC namespaces",
            Self::CreateWithUser => "create user, network, mount, PID and IPC namespaces",
            Self::Start => "hear from the first process of the namespaces",
            Self::ParentDeath => "tie the first process to its parent",
            Self::Setgroups => "write setgroups",
            Self::UidMap => "write uid_map",
            Self::GidMap => "write gid_map",
            Self::PrivateMounts => "make the mounts private",
        })
    }
}

impl Failure {
    fn encode(self) -> [u8; 5] {
        let [a, b, c, d] = (self.errno as i32).to_le_bytes();
        [self.step as u8, a, b, c, d]
    }

    fn decode(message: &[u8]) -> Option<Self> {
        let [step, a, b, c, d] = *message else { return None };
        let step = Step::INSIDE.into_iter().find(|known| *known as u8 == step)?;
        Some(Self { step, errno: Errno::from_raw(i32::from_le_bytes([a, b, c, d])) })
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self { action: failure.step.to_string(), source: failure.errno }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_crosses_the_channel() {
        for step in Step::INSIDE {
            let failure = Failure { step, errno: Errno::EPERM };
            assert_eq!(Failure::decode(&failure.encode()), Some(failure));
        }
        assert_eq!(Failure::decode(&READY), None);
    }
}
