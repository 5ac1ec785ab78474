//! Whether this machine lets this user have a sandbox, and if not, which gate is closed.

use crate::{
    error::{Context, Error, Result},
    link,
    ruleset::Ruleset,
    spawn::{self, Channel, Failure, Namespaces, Step},
};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

mod evidence;

/// A gate of the kernel or the distribution that is closed, with what was tried and seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tried}; {cause}")]
pub struct Gate {
    /// The step that failed and the kernel's answer.
    pub tried: Error,
    /// What was seen that explains it.
    pub cause: Cause,
}

/// Why a step of [`probe`] failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A sysctl that has to be `wants` is `is`: Debian's kernel.unprivileged_userns_clone, Ubuntu's kernel.apparmor_restrict_unprivileged_userns,
    /// the user.max_*_namespaces of namespaces(7).
    Sysctl { name: &'static str, is: u64, wants: u64 },
    /// All namespaces that a limit of namespaces(7) allows are in use, or they nest too deep (32, user_namespaces(7)).
    Exhausted,
    /// An AppArmor profile in enforce mode confines this process, as container runtimes set up.
    AppArmorProfile(String),
    /// A seccomp filter is in force, as container runtimes set up.
    Seccomp,
    /// In a chroot(2) the kernel makes no user namespaces and changes no mounts.
    Chroot,
    /// Something is mounted below /proc, as container runtimes do; the kernel then gives no fresh one to a user namespace.
    ProcCovered(PathBuf),
    /// Without a user namespace, CAP_SYS_ADMIN is needed.
    Unprivileged,
    /// The kernel was built without a kind of namespace.
    Kernel { option: &'static str },
    /// nf_tables or a kind of expression is missing.
    Nftables { feature: &'static str, module: &'static str },
    /// None of the above was seen.
    Unknown,
}

/// Tries everything a sandbox needs in a throw-away child: namespaces, maps, `lo` up, `rules` loaded, a fresh /proc mounted, a file bound over another.
/// As [`spawn::spawn`] does, it needs a process with one thread.
pub fn probe(namespaces: Namespaces, rules: &Ruleset) -> std::result::Result<(), Gate> {
    let stopped = match spawn::start(namespaces, |channel| try_inside(&channel, rules)) {
        Ok(child) => match child.channel.recv() {
            Ok(Some((message, _))) if message == DONE => return Ok(()),
            Ok(Some((message, _))) => Stopped::decode(&message),
            _ => None,
        },
        Err(failure) => Some(failure.into()),
    };
    let stopped =
        stopped.unwrap_or_else(|| Stopped::at(Stage::Ids)(Error { action: "hear from the child that tries".into(), source: Errno::EPIPE }));
    let cause = evidence::cause(&stopped, namespaces.user.is_some(), Path::new("/proc"));
    Err(Gate { tried: stopped.error, cause })
}

impl Gate {
    /// The exact command that opens it, where one exists.
    pub fn opens_with(&self) -> Option<String> {
        Some(match &self.cause {
            Cause::Sysctl { name, wants, .. } => format!("sudo sysctl -w {name}={wants}"),
            Cause::AppArmorProfile(_) => "docker run --security-opt apparmor=unconfined …".into(),
            Cause::Seccomp => "docker run --security-opt seccomp=unconfined …".into(),
            Cause::ProcCovered(_) => "docker run --security-opt systempaths=unconfined …".into(),
            Cause::Nftables { module, .. } => format!("sudo modprobe {module}"),
            Cause::Exhausted | Cause::Chroot | Cause::Unprivileged | Cause::Kernel { .. } | Cause::Unknown => return None,
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { name, is, .. } => write!(f, "{name} is {is}"),
            Self::Exhausted => f.write_str("no user.max_*_namespaces is 0, so one is used up or namespaces nest deeper than 32"),
            Self::AppArmorProfile(profile) => write!(f, "the AppArmor profile {profile} confines this process"),
            Self::Seccomp => f.write_str("a seccomp filter is in force (Seccomp: 2 in /proc/self/status), as in a container"),
            Self::Chroot => f.write_str("this process is in a chroot (no / in /proc/self/mountinfo)"),
            Self::ProcCovered(path) => write!(f, "{} is mounted over, as in a container", path.display()),
            Self::Unprivileged => f.write_str("this process has no CAP_SYS_ADMIN"),
            Self::Kernel { option } => write!(f, "this kernel was built without {option}"),
            Self::Nftables { feature, module } => write!(f, "this kernel has no {feature} (module {module})"),
            Self::Unknown => f.write_str("no known gate is closed"),
        }
    }
}

/// What the child says when everything worked; anything else is a [`Stopped`].
const DONE: [u8; 1] = [0];

/// Where a probe can stop, as far as the causes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Create = 1,
    Ids,
    Loopback,
    Rules,
    Mounts,
    Proc,
}

/// The stage and what was attempted there. Travels from the child to the parent as a message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stopped {
    stage: Stage,
    error: Error,
}

impl Stopped {
    fn at(stage: Stage) -> impl FnOnce(Error) -> Self {
        move |error| Self { stage, error }
    }

    fn encode(&self) -> Vec<u8> {
        let mut message = vec![self.stage as u8];
        message.extend((self.error.source as i32).to_le_bytes());
        message.extend(self.error.action.as_bytes());
        message
    }

    fn decode(message: &[u8]) -> Option<Self> {
        const STAGES: [Stage; 6] = [Stage::Create, Stage::Ids, Stage::Loopback, Stage::Rules, Stage::Mounts, Stage::Proc];
        let [stage, a, b, c, d, ref action @ ..] = *message else { return None };
        let stage = STAGES.into_iter().find(|known| *known as u8 == stage)?;
        let source = Errno::from_raw(i32::from_le_bytes([a, b, c, d]));
        let action = String::from_utf8_lossy(action).into_owned();
        Some(Self { stage, error: Error { action, source } })
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        let stage = match failure.step {
            Step::Create | Step::CreateWithUser => Stage::Create,
            Step::PrivateMounts => Stage::Mounts,
            _ => Stage::Ids,
        };
        Self { stage, error: failure.into() }
    }
}

fn try_inside(channel: &Channel, rules: &Ruleset) -> u8 {
    let message = match try_all(rules) {
        Ok(()) => DONE.to_vec(),
        Err(stopped) => stopped.encode(),
    };
    u8::from(channel.send(&message, &[]).is_err())
}

fn try_all(rules: &Ruleset) -> std::result::Result<(), Stopped> {
    link::up("lo").map_err(Stopped::at(Stage::Loopback))?;
    rules.create().map_err(Stopped::at(Stage::Rules))?;
    mount_at("proc", "/proc").map_err(Stopped::at(Stage::Proc))?;
    bind_a_file().map_err(Stopped::at(Stage::Mounts))
}

/// On /proc, which certainly exists; all of it is seen by this child alone.
fn bind_a_file() -> Result<()> {
    mount_at("tmpfs", "/proc")?;
    let (file, over) = ("/proc/file", "/proc/over");
    for path in [file, over] {
        fs::write(path, path).context(|| format!("write {path}"))?;
    }
    mount(Some(file), over, None::<&str>, MsFlags::MS_BIND, None::<&str>).context(|| "bind a file over another".into())
}

fn mount_at(kind: &str, path: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), path, Some(kind), flags, None::<&str>).context(|| format!("mount a fresh {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_tried_what_was_seen_and_what_opens_it() {
        let tried = Error { action: "write uid_map".into(), source: Errno::EPERM };
        let cause = Cause::Sysctl { name: "kernel.apparmor_restrict_unprivileged_userns", is: 1, wants: 0 };
        let gate = Gate { tried, cause };
        let said = "write uid_map: EPERM: Operation not permitted; kernel.apparmor_restrict_unprivileged_userns is 1";
        assert_eq!(gate.to_string(), said);
        assert_eq!(gate.opens_with().unwrap(), "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    }

    #[test]
    fn a_stop_crosses_the_channel() {
        let error = Error { action: "bring lo up".into(), source: Errno::EPERM };
        let stopped = Stopped { stage: Stage::Loopback, error };
        assert_eq!(Stopped::decode(&stopped.encode()), Some(stopped));
        assert_eq!(Stopped::decode(&DONE), None);
    }
}
