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

/// CAP_SYS_ADMIN's bit in the masks of /proc/PID/status (capabilities(7), linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;

/// The limits of namespaces(7) that a sandbox counts against.
const LIMITS: [&str; 4] = ["user.max_user_namespaces", "user.max_net_namespaces", "user.max_mnt_namespaces", "user.max_pid_namespaces"];

/// What systems that do not close these gates have, or less.
const ENOUGH_NAMESPACES: u64 = 10_000;

/// What rules are made of, as nft(8) writes it, what it is, and the module that has it. In the order of dependence.
const FEATURES: [(&str, &str, &str); 0] = [];

/// Mount points that the kernel keeps below /proc for others; covering them hides nothing (fs/namespace.c, mnt_already_visible).
const EMPTY_BELOW_PROC: [&str; 2] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"];

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
    let cause = cause(&stopped, namespaces.user.is_some(), Path::new("/proc"));
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

/// The stage, what was attempted there, and which of [`FEATURES`] was found missing. Travels from the child to the parent as a message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stopped {
    stage: Stage,
    missing: Option<u8>,
    error: Error,
}

impl Stopped {
    fn at(stage: Stage) -> impl FnOnce(Error) -> Self {
        move |error| Self { stage, missing: None, error }
    }

    fn encode(&self) -> Vec<u8> {
        let mut message = vec![self.stage as u8, self.missing.unwrap_or(u8::MAX)];
        message.extend((self.error.source as i32).to_le_bytes());
        message.extend(self.error.action.as_bytes());
        message
    }

    fn decode(message: &[u8]) -> Option<Self> {
        const STAGES: [Stage; 6] = [Stage::Create, Stage::Ids, Stage::Loopback, Stage::Rules, Stage::Mounts, Stage::Proc];
        let [stage, missing, a, b, c, d, ref action @ ..] = *message else { return None };
        let stage = STAGES.into_iter().find(|known| *known as u8 == stage)?;
        let source = Errno::from_raw(i32::from_le_bytes([a, b, c, d]));
        let action = String::from_utf8_lossy(action).into_owned();
        Some(Self { stage, missing: (missing != u8::MAX).then_some(missing), error: Error { action, source } })
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        let stage = match failure.step {
            Step::Create | Step::CreateWithUser => Stage::Create,
            Step::PrivateMounts => Stage::Mounts,
            _ => Stage::Ids,
        };
        Self { stage, missing: None, error: failure.into() }
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
    rules.load().map_err(|error| Stopped { stage: Stage::Rules, missing: missing_feature(), error })?;
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

fn missing_feature() -> Option<u8> {
    None
}

fn mount_at(kind: &str, path: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), path, Some(kind), flags, None::<&str>).context(|| format!("mount a fresh {kind}"))
}

/// The cause that a proc(5) file system explains the failure with; `user`: a user namespace was asked for.
fn cause(stopped: &Stopped, user: bool, proc: &Path) -> Cause {
    let proc = Proc(proc);
    if let Some(&(_, feature, module)) = stopped.missing.and_then(|index| FEATURES.get(usize::from(index))) {
        return Cause::Nftables { feature, module };
    }
    match (stopped.stage, stopped.error.source) {
        (Stage::Create, Errno::ENOSPC) => proc.used_up(user),
        (Stage::Create, Errno::EINVAL) => proc.missing_namespace(user),
        (Stage::Mounts, Errno::EINVAL) => proc.in_chroot().then_some(Cause::Chroot),
        (stage, Errno::EPERM | Errno::EACCES) => proc.denial(stage, user),
        _ => None,
    }
    .unwrap_or(Cause::Unknown)
}

/// A proc(5) file system, read for what closes gates.
struct Proc<'a>(&'a Path);

impl Proc<'_> {
    /// The first that holds; what is certain comes before what is likely.
    fn denial(&self, stage: Stage, user: bool) -> Option<Cause> {
        type Look = fn(&Proc<'_>) -> Option<Cause>;
        let mounting = matches!(stage, Stage::Mounts | Stage::Proc);
        let looks: [(bool, Look); 7] = [
            (!user, |proc| (!proc.has_sys_admin()).then_some(Cause::Unprivileged)),
            (user && stage == Stage::Create, |proc| proc.switch("kernel.unprivileged_userns_clone", 0, 1)),
            (user && stage == Stage::Proc, |proc| proc.covered().map(Cause::ProcCovered)),
            (user, |proc| proc.switch("kernel.apparmor_restrict_unprivileged_userns", 1, 0)),
            (mounting, |proc| proc.profile().map(Cause::AppArmorProfile)),
            (true, |proc| proc.in_chroot().then_some(Cause::Chroot)),
            (true, |proc| proc.has_seccomp_filter().then_some(Cause::Seccomp)),
        ];
        looks.into_iter().filter(|(applies, _)| *applies).find_map(|(_, look)| look(self))
    }

    fn switch(&self, name: &'static str, closed: u64, wants: u64) -> Option<Cause> {
        (self.sysctl(name) == Some(closed)).then_some(Cause::Sysctl { name, is: closed, wants })
    }

    fn used_up(&self, user: bool) -> Option<Cause> {
        let limits = if user { &LIMITS[..] } else { &LIMITS[1..] };
        let zero = limits.iter().find_map(|name| self.switch(name, 0, ENOUGH_NAMESPACES));
        Some(zero.unwrap_or(Cause::Exhausted))
    }

    fn missing_namespace(&self, user: bool) -> Option<Cause> {
        let namespaces = self.0.join("self/ns");
        // A directory that cannot be listed tells nothing.
        fs::read_dir(&namespaces).ok()?;
        let kinds = [("user", "CONFIG_USER_NS"), ("net", "CONFIG_NET_NS"), ("pid", "CONFIG_PID_NS")];
        let missing = |kind: &str| (user || kind != "user") && !namespaces.join(kind).is_symlink();
        kinds.into_iter().find(|(kind, _)| missing(kind)).map(|(_, option)| Cause::Kernel { option })
    }

    fn sysctl(&self, name: &str) -> Option<u64> {
        self.read(&format!("sys/{}", name.replace('.', "/")))?.trim().parse().ok()
    }

    fn has_sys_admin(&self) -> bool {
        let mask = self.status("CapEff:").and_then(|text| u64::from_str_radix(&text, 16).ok());
        mask.is_none_or(|mask| mask & (1 << CAP_SYS_ADMIN) != 0)
    }

    fn has_seccomp_filter(&self) -> bool {
        self.status("Seccomp:").as_deref() == Some("2")
    }

    fn status(&self, field: &str) -> Option<String> {
        self.read("self/status")?.lines().find_map(|line| line.strip_prefix(field)).map(|value| value.trim().to_owned())
    }

    /// `docker-default` from `docker-default (enforce)`.
    fn profile(&self) -> Option<String> {
        self.read("self/attr/current")?.trim_end_matches(['\n', '\0']).strip_suffix(" (enforce)").map(str::to_owned)
    }

    /// Mounts are listed as they are reached from this process's root: in a chroot to a plain directory none is at `/`.
    fn in_chroot(&self) -> bool {
        self.mount_points().is_some_and(|points| !points.iter().any(|point| point == "/"))
    }

    fn covered(&self) -> Option<PathBuf> {
        let below = |point: &String| point.starts_with("/proc/") && !EMPTY_BELOW_PROC.contains(&point.as_str());
        self.mount_points()?.into_iter().find(below).map(PathBuf::from)
    }

    /// The fifth field of each line (proc_pid_mountinfo(5)).
    fn mount_points(&self) -> Option<Vec<String>> {
        Some(self.read("self/mountinfo")?.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n";
    const BINFMT: &str = "40 22 0:35 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw\n";
    const UNPRIVILEGED: &str = "CapEff:\t0000000000000000\nSeccomp:\t0\n";

    /// The cause of `errno` at `stage`, in a system whose /proc has these files besides those of an open one.
    fn seen(stage: Stage, errno: Errno, user: bool, files: &[(&str, &str)]) -> Cause {
        let proc = tempfile::tempdir().unwrap();
        let binfmt = format!("{MOUNTS}{BINFMT}");
        let open = [
            ("sys/kernel/unprivileged_userns_clone", "1\n"),
            ("sys/kernel/apparmor_restrict_unprivileged_userns", "0\n"),
            ("sys/user/max_user_namespaces", "96365\n"),
            ("sys/user/max_net_namespaces", "96365\n"),
            ("self/status", UNPRIVILEGED),
            ("self/attr/current", "unconfined\n"),
            ("self/mountinfo", &binfmt),
        ];
        for (path, text) in open.iter().chain(files) {
            let path = proc.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let error = Error { action: "try".into(), source: errno };
        cause(&Stopped { stage, missing: None, error }, user, proc.path())
    }

    fn sysctl(name: &'static str, is: u64, wants: u64) -> Cause {
        Cause::Sysctl { name, is, wants }
    }

    #[test]
    fn names_the_gate_that_is_closed() {
        let restricted = ("sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
        let filtered = ("self/status", "CapEff:\t0000000000000000\nSeccomp:\t2\n");
        let docker_profile = ("self/attr/current", "docker-default (enforce)\n");
        let covered = format!("{MOUNTS}30 22 0:36 / /proc/acpi ro - tmpfs tmpfs ro\n");
        let covered = ("self/mountinfo", covered.as_str());
        let chroot = ("self/mountinfo", "22 27 0:21 / /proc rw - proc proc rw\n");
        let apparmor = || sysctl("kernel.apparmor_restrict_unprivileged_userns", 1, 0);
        type Row<'a> = (Stage, Errno, &'a [(&'a str, &'a str)], Cause);
        let table: [Row<'_>; 19] = [
            (
                Stage::Create,
                Errno::EPERM,
                &[("sys/kernel/unprivileged_userns_clone", "0\n")],
                sysctl("kernel.unprivileged_userns_clone", 0, 1),
            ),
            (Stage::Create, Errno::ENOSPC, &[("sys/user/max_user_namespaces", "0\n")], sysctl("user.max_user_namespaces", 0, 10_000)),
            (Stage::Create, Errno::ENOSPC, &[("sys/user/max_net_namespaces", "0\n")], sysctl("user.max_net_namespaces", 0, 10_000)),
            (Stage::Create, Errno::ENOSPC, &[], Cause::Exhausted),
            (Stage::Create, Errno::EACCES, &[restricted], apparmor()),
            (Stage::Ids, Errno::EPERM, &[restricted], apparmor()),
            (Stage::Loopback, Errno::EPERM, &[restricted], apparmor()),
            (Stage::Mounts, Errno::EACCES, &[restricted, docker_profile], apparmor()),
            (Stage::Mounts, Errno::EACCES, &[docker_profile, filtered], Cause::AppArmorProfile("docker-default".into())),
            (Stage::Create, Errno::EPERM, &[docker_profile, filtered], Cause::Seccomp),
            (Stage::Mounts, Errno::EPERM, &[filtered], Cause::Seccomp),
            (Stage::Proc, Errno::EPERM, &[covered, restricted, filtered], Cause::ProcCovered("/proc/acpi".into())),
            (Stage::Mounts, Errno::EPERM, &[covered], Cause::Unknown),
            (Stage::Proc, Errno::EPERM, &[], Cause::Unknown),
            (Stage::Create, Errno::EPERM, &[chroot], Cause::Chroot),
            (Stage::Mounts, Errno::EINVAL, &[chroot], Cause::Chroot),
            (Stage::Create, Errno::EPERM, &[], Cause::Unknown),
            (Stage::Create, Errno::EINVAL, &[("self/ns/mnt", "")], Cause::Kernel { option: "CONFIG_USER_NS" }),
            (Stage::Rules, Errno::ENOMEM, &[restricted], Cause::Unknown),
        ];
        for (stage, errno, files, expected) in table {
            assert_eq!(seen(stage, errno, true, files), expected, "{stage:?} {errno} {files:?}");
        }
    }

    #[test]
    fn without_a_user_namespace_only_privilege_counts() {
        let root = ("self/status", "CapEff:\t000001ffffffffff\nSeccomp:\t2\n");
        let closed = [("sys/kernel/unprivileged_userns_clone", "0"), ("sys/kernel/apparmor_restrict_unprivileged_userns", "1"), root];
        assert_eq!(seen(Stage::Create, Errno::EPERM, false, &closed[..2]), Cause::Unprivileged);
        assert_eq!(seen(Stage::Create, Errno::EPERM, false, &closed), Cause::Seccomp);
        assert_eq!(seen(Stage::Create, Errno::ENOSPC, false, &[("sys/user/max_user_namespaces", "0"), root]), Cause::Exhausted);
    }

    #[test]
    fn says_what_was_tried_what_was_seen_and_what_opens_it() {
        let tried = Error { action: "write uid_map".into(), source: Errno::EPERM };
        let gate = Gate { tried, cause: sysctl("kernel.apparmor_restrict_unprivileged_userns", 1, 0) };
        let said = "write uid_map: EPERM: Operation not permitted; kernel.apparmor_restrict_unprivileged_userns is 1";
        assert_eq!(gate.to_string(), said);
        assert_eq!(gate.opens_with().unwrap(), "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    }

    #[test]
    fn a_stop_crosses_the_channel() {
        let error = Error { action: "bring lo up".into(), source: Errno::EPERM };
        for missing in [None, Some(0)] {
            let stopped = Stopped { stage: Stage::Loopback, missing, error: error.clone() };
            assert_eq!(Stopped::decode(&stopped.encode()), Some(stopped));
        }
        assert_eq!(Stopped::decode(&DONE), None);
    }
}
