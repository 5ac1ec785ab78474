//! Why a machine does not let a user have a sandbox. Data alone, so that a program for several systems can name it on all of them.

use std::{fmt, path::PathBuf};

use crate::Error;

/// A gate of the kernel or the distribution that is closed, with what was tried and seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tried}; {cause}")]
pub struct Gate {
    /// The step that failed and the kernel's answer.
    pub tried: Error,
    /// What was seen that explains it.
    pub cause: Cause,
}

/// Why a step of a sandbox's making failed.
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn says_what_was_tried_what_was_seen_and_what_opens_it() {
        let tried = Error { action: "write uid_map".into(), source: Errno::EPERM };
        let cause = Cause::Sysctl { name: "kernel.apparmor_restrict_unprivileged_userns", is: 1, wants: 0 };
        let gate = Gate { tried, cause };
        let said = "write uid_map: EPERM: Operation not permitted; kernel.apparmor_restrict_unprivileged_userns is 1";
        assert_eq!(gate.to_string(), said);
        assert_eq!(gate.opens_with().unwrap(), "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    }
}
