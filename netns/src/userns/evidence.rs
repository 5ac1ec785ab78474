//! What /proc shows of the gates that are closed.

use super::{Cause, Stage, Stopped};
use nix::errno::Errno;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// CAP_SYS_ADMIN's bit in the masks of /proc/PID/status (capabilities(7), linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;

/// The limits of namespaces(7) that a sandbox counts against.
const LIMITS: [&str; 5] = [
    "user.max_user_namespaces",
    "user.max_net_namespaces",
    "user.max_mnt_namespaces",
    "user.max_pid_namespaces",
    "user.max_ipc_namespaces",
];

/// What systems that do not close these gates have, or less.
const ENOUGH_NAMESPACES: u64 = 10_000;

/// What a refused part of a ruleset holds, as nft(8) writes it; what that is; the module that has it. What else a rule may hold comes after
/// what it is there for.
const FEATURES: [(&str, &str, &str); 6] = [
    ("redirect", "redirection", "nft_redir"),
    ("masquerade", "masquerading", "nft_masq"),
    ("fib ", "lookup of local addresses", "nft_fib_inet"),
    ("reject", "rejection", "nft_reject_inet"),
    ("ct ", "connection tracking", "nft_ct"),
    ("type nat", "NAT chains", "nft_chain_nat"),
];

/// nf_tables itself, or its `inet` family.
const NF_TABLES: Cause = Cause::Nftables { feature: "nf_tables for IPv4 and IPv6 together", module: "nf_tables" };

/// Mount points that the kernel keeps below /proc for others; covering them hides nothing (fs/namespace.c, mnt_already_visible).
const EMPTY_BELOW_PROC: [&str; 2] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"];

/// The cause that a proc(5) file system explains the failure with; `user`: a user namespace was asked for.
pub(super) fn cause(stopped: &Stopped, user: bool, proc: &Path) -> Cause {
    let proc = Proc(proc);
    match (stopped.stage, stopped.error.source) {
        (Stage::Rules, Errno::ENOENT) => missing_feature(&stopped.error.action),
        (Stage::Rules, Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => Some(NF_TABLES),
        (Stage::Create, Errno::ENOSPC) => proc.used_up(user),
        (Stage::Create, Errno::EINVAL) => proc.missing_namespace(user),
        (Stage::Mounts, Errno::EINVAL) => proc.in_chroot().then_some(Cause::Chroot),
        (stage, Errno::EPERM | Errno::EACCES) => proc.denial(stage, user),
        _ => None,
    }
    .unwrap_or(Cause::Unknown)
}

/// From the text of the part that the kernel refused: it answers ENOENT for a kind of chain or expression that it does not have.
fn missing_feature(refused: &str) -> Option<Cause> {
    let held = FEATURES.into_iter().find(|(text, ..)| refused.contains(text));
    held.map(|(_, feature, module)| Cause::Nftables { feature, module })
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
        let kinds = [("user", "CONFIG_USER_NS"), ("net", "CONFIG_NET_NS"), ("pid", "CONFIG_PID_NS"), ("ipc", "CONFIG_IPC_NS")];
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
    use super::{super::Gate, *};
    use crate::Error;

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
        cause(&Stopped { stage, error }, user, proc.path())
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
        let table: [Row<'_>; 20] = [
            (
                Stage::Create,
                Errno::EPERM,
                &[("sys/kernel/unprivileged_userns_clone", "0\n")],
                sysctl("kernel.unprivileged_userns_clone", 0, 1),
            ),
            (Stage::Create, Errno::ENOSPC, &[("sys/user/max_user_namespaces", "0\n")], sysctl("user.max_user_namespaces", 0, 10_000)),
            (Stage::Create, Errno::ENOSPC, &[("sys/user/max_net_namespaces", "0\n")], sysctl("user.max_net_namespaces", 0, 10_000)),
            (Stage::Create, Errno::ENOSPC, &[("sys/user/max_ipc_namespaces", "0\n")], sysctl("user.max_ipc_namespaces", 0, 10_000)),
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
    fn names_what_nftables_lacks() {
        for (refused, errno, module) in [
            ("add rule to table inet t: tcp dport 443 redirect to :3128", Errno::ENOENT, Some("nft_redir")),
            ("add rule to table inet t: fib daddr type local return", Errno::ENOENT, Some("nft_fib_inet")),
            ("add rule to table inet t: udp dport 443 reject", Errno::ENOENT, Some("nft_reject_inet")),
            ("add rule to table inet t: masquerade", Errno::ENOENT, Some("nft_masq")),
            ("add rule to table inet t: ct state established accept", Errno::ENOENT, Some("nft_ct")),
            ("add chain c to table inet t: type nat hook output priority -100", Errno::ENOENT, Some("nft_chain_nat")),
            ("add table inet t", Errno::EOPNOTSUPP, Some("nf_tables")),
            ("open a netlink socket", Errno::EPROTONOSUPPORT, Some("nf_tables")),
            ("add table inet t", Errno::EAFNOSUPPORT, Some("nf_tables")),
            ("add table inet t", Errno::ENOENT, None),
            ("add rule to table inet t: tcp dport 443 redirect to :3128", Errno::EINVAL, None),
        ] {
            let stopped = Stopped { stage: Stage::Rules, error: Error { action: refused.into(), source: errno } };
            let gate = Gate { tried: stopped.error.clone(), cause: cause(&stopped, true, Path::new("/nonexistent")) };
            assert_eq!(gate.opens_with(), module.map(|module| format!("sudo modprobe {module}")), "{refused}");
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
}
