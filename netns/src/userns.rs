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
use std::{fs, path::Path};

mod evidence;

pub use crate::gate::{Cause, Gate};

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
    fn a_stop_crosses_the_channel() {
        let error = Error { action: "bring lo up".into(), source: Errno::EPERM };
        let stopped = Stopped { stage: Stage::Loopback, error };
        assert_eq!(Stopped::decode(&stopped.encode()), Some(stopped));
        assert_eq!(Stopped::decode(&DONE), None);
    }
}
