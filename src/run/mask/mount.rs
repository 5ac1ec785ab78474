//! mount(2) in the sandbox's own mount namespace: binds, tmpfs, a fresh proc, each error with the path it was about.

use std::{
    fs::{self, Permissions},
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        stat::Mode,
        statvfs::{FsFlags, statvfs},
    },
    unistd::{Gid, Uid},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("bind {source_path} over {target}: {source}")]
    Bind { source_path: PathBuf, target: PathBuf, source: Errno },
    #[error("make {target} read-only: {source}")]
    ReadOnly { target: PathBuf, source: Errno },
    #[error("mount a tmpfs over {target}: {source}")]
    Tmpfs { target: PathBuf, source: Errno },
    #[error("mount an overlay over {target}: {source}")]
    Overlay { target: PathBuf, source: Errno },
    #[error("mount a fresh proc over {target}: {source}")]
    Proc { target: PathBuf, source: Errno },
    #[error("mount the run's own message queues over {target}: {source}")]
    Queues { target: PathBuf, source: Errno },
    #[error("move the mount at {from} to {target}: {source}")]
    Move { from: PathBuf, target: PathBuf, source: Errno },
    #[error("take off the mount at {target}: {source}")]
    TakeOff { target: PathBuf, source: Errno },
    #[error("write {path} in the sandbox's private directory: {source}")]
    Write { path: PathBuf, source: io::Error },
}

/// Shows `from` at `target` too, with what is mounted below it: a user namespace may not take a tree apart (EINVAL otherwise).
pub fn bind(from: &Path, target: &Path) -> Result<(), Error> {
    mount(Some(from), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).map_err(|source| Error::Bind {
        source_path: from.to_owned(),
        target: target.to_owned(),
        source,
    })
}

/// As [`bind`]; nothing can be changed through `target` then.
pub fn bind_read_only(from: &Path, target: &Path) -> Result<(), Error> {
    bind(from, target)?;
    read_only(target)
}

/// Makes the mount at `target` read-only. The flags it has must be repeated: in a user namespace those of an inherited mount are locked
/// (mount_namespaces(7)); access time flags are kept by the kernel when none is given.
pub fn read_only(target: &Path) -> Result<(), Error> {
    const KEPT: [(FsFlags, MsFlags); 3] =
        [(FsFlags::ST_NOSUID, MsFlags::MS_NOSUID), (FsFlags::ST_NODEV, MsFlags::MS_NODEV), (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC)];
    let failed = |source| Error::ReadOnly { target: target.to_owned(), source };
    let now = statvfs(target).map_err(failed)?.flags();
    let kept = KEPT.into_iter().filter(|(has, _)| now.contains(*has)).map(|(_, flag)| flag).collect::<MsFlags>();
    remount(target, MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept).map_err(failed)
}

/// Makes a file system read-only as a whole, at every place where it is bound.
pub fn seal(target: &Path) -> Result<(), Error> {
    remount(target, MsFlags::MS_RDONLY | TMPFS).map_err(|source| Error::ReadOnly { target: target.to_owned(), source })
}

fn remount(target: &Path, flags: MsFlags) -> Result<(), Errno> {
    mount(None::<&str>, target, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>)
}

const TMPFS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// An empty directory of the user's own (mode 0700) over `target`.
pub fn private_tmpfs(target: &Path, uid: Uid, gid: Gid) -> Result<(), Error> {
    tmpfs(target, &format!("mode=0700,uid={uid},gid={gid}"))
}

/// A new tmpfs over `target`; `options` as in tmpfs(5).
pub fn tmpfs(target: &Path, options: &str) -> Result<(), Error> {
    mount(Some("authsome"), target, Some("tmpfs"), TMPFS, Some(options))
        .map_err(|source| Error::Tmpfs { target: target.to_owned(), source })
}

/// Shows again what the mount at `target` covers.
pub fn take_off(target: &Path) -> Result<(), Error> {
    umount2(target, MntFlags::MNT_DETACH).map_err(|source| Error::TakeOff { target: target.to_owned(), source })
}

/// `upper` over `target`, merged and read-only, at `target`. EPERM in a user namespace before Linux 5.11; EINVAL where a mount of the outer
/// namespace is below `target`.
pub fn overlay(upper: &Path, target: &Path) -> Result<(), Error> {
    let failed = |source| Error::Overlay { target: target.to_owned(), source };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let handle = |path: &Path| open(path, flags, Mode::empty()).map_err(failed);
    let (upper, lower) = (handle(upper)?, handle(target)?);
    // By descriptor: in a path colons and commas would be read as syntax.
    let layers = format!("lowerdir=/proc/self/fd/{}:/proc/self/fd/{}", upper.as_raw_fd(), lower.as_raw_fd());
    mount(Some("authsome"), target, Some("overlay"), TMPFS | MsFlags::MS_RDONLY, Some(layers.as_str())).map_err(failed)
}

pub fn move_to(from: &Path, target: &Path) -> Result<(), Error> {
    mount(Some(from), target, None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(|source| Error::Move {
        from: from.to_owned(),
        target: target.to_owned(),
        source,
    })
}

/// A proc of the calling process's PID namespace over `target`. EPERM in a user namespace when the proc that is there now is partly
/// hidden by other mounts, as in most containers (mount_namespaces(7)).
pub fn proc(target: &Path) -> Result<(), Error> {
    let flags = TMPFS | MsFlags::MS_NOEXEC;
    mount(Some("proc"), target, Some("proc"), flags, None::<&str>).map_err(|source| Error::Proc { target: target.to_owned(), source })
}

/// The POSIX message queues of the calling process's IPC namespace over `target` (mq_overview(7)).
pub fn queues(target: &Path) -> Result<(), Error> {
    let flags = TMPFS | MsFlags::MS_NOEXEC;
    mount(Some("mqueue"), target, Some("mqueue"), flags, None::<&str>).map_err(|source| Error::Queues { target: target.to_owned(), source })
}

/// Writes a file CMD may read, whatever the umask.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o444)))
        .map_err(|source| Error::Write { path: path.to_owned(), source })
}
