//! The last step before CMD: the sandbox's first process gives up every privilege it and its children could use against the sandbox.

use std::{fmt, io};

use caps::{CapSet, Capability, errors::CapsError};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{Resource, getrlimit, rlim_t, setrlimit},
    },
};

use crate::defence::Defence;

mod filter;

pub use super::options::KernelRule as Rule;

/// What the user chose to leave open; everything else is closed. `Display` lists each rule with its state, one a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Rules that are not put in force (`--allow-kernel NAME`).
    pub allow: Vec<Rule>,
}

impl Options {
    pub fn refuses(&self, rule: Rule) -> bool {
        !self.allow.contains(&rule)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for refusal in filter::REFUSALS {
            let state = if self.refuses(refusal.rule) { "refused" } else { "allowed" };
            writeln!(f, "{state}  {:<16} {}", refusal.rule, refusal.why)?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("limit core dumps: {0}")]
    CoreLimit(#[source] Errno),
    #[error("join an empty session keyring: {0}")]
    SessionKeyring(#[source] io::Error),
    #[error("drop the {set} capabilities: {source}")]
    Capabilities { set: &'static str, source: CapsError },
    #[error("set no_new_privs: {0}")]
    NoNewPrivileges(#[source] Errno),
    #[error("make the process non-dumpable: {0}")]
    Dumpable(#[source] Errno),
    #[error("compile the system call filter: {0}")]
    Compile(#[source] seccompiler::BackendError),
    #[error("install the system call filter: {0}")]
    Install(#[source] seccompiler::Error),
}

/// The core dump limit as it was before [`lock_down`]: CMD keeps its own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "CMD keeps its own limits: restore this in the forked child"]
pub struct CoreLimit {
    soft: rlim_t,
    hard: rlim_t,
}

impl CoreLimit {
    /// For the forked child, before it executes CMD. Needs no privilege: only the soft limit was lowered.
    pub fn restore(self) -> Result<(), Error> {
        setrlimit(Resource::RLIMIT_CORE, self.soft, self.hard).map_err(Error::CoreLimit)
    }
}

/// Locks down the calling thread and everything it will fork. Call it after the last change of user or group (which makes a
/// process dumpable again and clears what prctl(2) set) and after the last mount.
pub fn lock_down(options: &Options) -> Result<CoreLimit, Error> {
    let core = forbid_core_dumps()?;
    leave_session_keyring()?;
    if Defence::NoCapabilities.active() {
        drop_capabilities()?;
    }
    if Defence::NoNewPrivileges.active() {
        prctl::set_no_new_privs().map_err(Error::NoNewPrivileges)?;
    }
    prctl::set_dumpable(!Defence::NonDumpable.active()).map_err(Error::Dumpable)?;
    if Defence::SystemCalls.active() {
        for program in filter::compile(options).map_err(Error::Compile)? {
            seccompiler::apply_filter(&program).map_err(Error::Install)?;
        }
    }
    Ok(core)
}

/// The bounding set goes while there is a right to drop it (capabilities(7)), which a change of user to come takes away.
pub fn drop_bounding_set() -> Result<(), Error> {
    if !Defence::NoCapabilities.active() {
        return Ok(());
    }
    caps::clear(None, CapSet::Bounding).map_err(|source| Error::Capabilities { set: "bounding", source })
}

fn forbid_core_dumps() -> Result<CoreLimit, Error> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(Error::CoreLimit)?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard).map_err(Error::CoreLimit)?;
    Ok(CoreLimit { soft, hard })
}

/// Keys of the login session would otherwise stay in the child's possession (keyrings(7)), whether or not it may call keyctl(2).
fn leave_session_keyring() -> Result<(), Error> {
    match netns::keyring::join_new_session() {
        Ok(()) => Ok(()),
        // Already out of the child's reach: no keys in this kernel (ENOSYS), or a container's filter refuses keyctl(2) to all (EPERM).
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        Err(error) => Err(Error::SessionKeyring(error)),
    }
}

/// The bounding set goes first, while CAP_SETPCAP is there. A process that lost it to a change of user can regain nothing either:
/// no_new_privs makes set-uid programs and file capabilities inert.
fn drop_capabilities() -> Result<(), Error> {
    let failed = |set| move |source| Error::Capabilities { set, source };
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed("effective"))? {
        caps::clear(None, CapSet::Bounding).map_err(failed("bounding"))?;
    }
    // What is not inheritable is not ambient either, and what is not permitted is not effective (capabilities(7)).
    caps::clear(None, CapSet::Inheritable).map_err(failed("inheritable"))?;
    caps::clear(None, CapSet::Permitted).map_err(failed("permitted"))
}
