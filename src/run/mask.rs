//! What the sandbox does not see of the machine: secrets, doors to processes outside, and what would run later outside.
//!
//! The supervisor takes a [`Survey`] before the clone; the sandbox's first process puts it in force, in its own mount namespace.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    os::{
        fd::RawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid};

use super::variables::leads_outside;
use crate::defence::Defence;

mod apply;
mod later;
pub mod mount;
pub(crate) mod mountinfo;
pub(crate) mod sockets;

pub use apply::Covered;

pub use mountinfo::Mounts;

/// The user CMD runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: Uid,
    pub gid: Gid,
    /// Home directory.
    pub home: PathBuf,
}

/// What a [`Survey`] is taken for.
pub struct Request<'a> {
    /// AUTHSOME_HOME, which exists.
    pub authsome_home: &'a Path,
    /// AUTHSOME_MASTER_KEY_FILE.
    pub key_file: Option<&'a Path>,
    pub user: User,
    /// Written into the marker inside the masked home.
    pub run_id: &'a str,
    /// `--keep-path`: what is at or below one of these stays as it is. Never lifts the mask of AUTHSOME_HOME or of the key file.
    pub keep: &'a [PathBuf],
    /// The environment the user called us with.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
}

/// Everything that will be masked: plain data, made before anything is changed. `Display` gives one line a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    user: User,
    run_id: String,
    /// AUTHSOME_HOME as a real path.
    home: PathBuf,
    keep: Vec<PathBuf>,
    masks: Vec<Mask>,
    unmade: Vec<later::Name>,
}

/// One mask, in the order in which they are put in force. Paths are real paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mask {
    /// An empty directory of the user's own instead.
    Private(PathBuf),
    /// The directory with this run's marker and certificates instead.
    Home(PathBuf),
    /// An empty file instead of a secret.
    Hidden(PathBuf),
    /// A socket nobody listens on instead.
    Socket(PathBuf),
    /// A proc of the sandbox's own processes instead.
    Proc(PathBuf),
    /// The message queues of the sandbox's own IPC namespace instead.
    Queues(PathBuf),
    /// As it was, but cannot be renamed away.
    Pinned(PathBuf),
    /// As it was, but cannot be changed. The path itself may be a symbolic link: it, too, stays.
    ReadOnly(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: a secret file with {links} hard links can be read by another name")]
    HardLinks { path: PathBuf, links: u64 },
    #[error("keep path {path}: {source}")]
    Keep { path: PathBuf, source: io::Error },
    #[error("the working directory {0} is masked in the sandbox")]
    WorkingDirectory(PathBuf),
    #[error("file descriptor {fd} is the directory {path}: it would lead around the masks")]
    DirectoryDescriptor { fd: RawFd, path: PathBuf },
    #[error("file descriptor {fd} is {path}, which is masked in the sandbox")]
    Descriptor { fd: RawFd, path: PathBuf },
    #[error(transparent)]
    Mount(#[from] mount::Error),
    #[error("{0} is on no file system of the mount table, so it cannot be told where else it is seen")]
    NotInMountTable(PathBuf),
    #[error("open {path}: {source}")]
    Open { path: PathBuf, source: nix::errno::Errno },
    #[error("{0} is not masked although a mask was mounted over it")]
    NotMasked(PathBuf),
}

impl Survey {
    pub fn take(request: &Request<'_>) -> Result<Self, Error> {
        let read = |path: &Path, source| Error::Read { path: path.to_owned(), source };
        let home = request.authsome_home.canonicalize().map_err(|source| read(request.authsome_home, source))?;
        let keep = request.keep.iter().map(|path| path.canonicalize().map_err(|source| Error::Keep { path: path.clone(), source }));
        let keep: Vec<PathBuf> = keep.collect::<Result<_, _>>()?;
        let mounts = Mounts::read().map_err(|source| read(Path::new("/proc/self/mountinfo"), source))?;

        refuse_hard_links(&home)?;
        let mut masks = BTreeSet::new();
        masks.extend(home_masks(&mounts, &home)?);
        if let Some(key_file) = request.key_file.and_then(|path| path.canonicalize().ok()).filter(|path| path.is_file()) {
            refuse_hard_link(&key_file)?;
            masks.extend(places_of_secret(&mounts, &key_file)?.into_iter().map(Mask::Hidden));
        }
        let private = private_directories(request);
        masks.extend(private.iter().filter(|path| !is_kept(path, &keep)).flat_map(|path| mounts.places(path)).map(Mask::Private));
        let sockets = sockets::bound(&[request.user.home.join(".ssh")]).map_err(|source| read(Path::new("/proc/net/unix"), source))?;
        masks.extend(sockets.iter().filter(|path| !is_kept(path, &keep)).flat_map(|path| mounts.places(path)).map(Mask::Socket));
        masks.extend(other_procs(&mounts));
        masks.extend(other_queues(&mounts));
        for path in later::existing(request).iter().filter(|path| !is_kept(path, &keep)) {
            masks.extend(pins(path, &request.user.home).map(Mask::Pinned));
            masks.insert(Mask::ReadOnly(path.clone()));
            masks.extend(mounts.places(path).into_iter().map(Mask::ReadOnly));
        }
        masks.retain(Mask::is_in_force);
        let is_open = |path: &Path| {
            !is_kept(path, &keep) && !masks.iter().any(|mask| path.starts_with(mask.path()) && !matches!(mask, Mask::Pinned(_)))
        };
        let unmade = later::unmade(request, is_open);
        let masks = masks.into_iter().collect();
        let mut survey = Self { user: request.user.clone(), run_id: request.run_id.to_owned(), home, keep, masks, unmade };
        survey.drop_what_is_covered();
        Ok(survey)
    }

    /// AUTHSOME_HOME as a real path: where [`Covered::home`] will be.
    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn masks(&self) -> &[Mask] {
        &self.masks
    }

    /// Files that run later and were not there at the survey, but are now: no mask can be over a name that does not exist.
    pub fn made(&self) -> Vec<&Path> {
        self.unmade.iter().filter(|name| name.is_made()).map(later::Name::path).collect()
    }

    /// Whether a variable of the user's environment must not reach CMD: it names a door outside that is not kept.
    pub fn removes_variable(&self, name: &OsStr, value: &OsStr) -> bool {
        Defence::CleanEnvironment.active()
            && leads_outside(name)
            && !self.keep.iter().any(|path| contains(value.as_bytes(), path.as_os_str().as_bytes()))
    }

    /// Refuses a working directory and standard streams that would keep a view of what is masked: what a process holds open is not
    /// affected by a mount over its path.
    pub fn refuse_inherited(&self, working_directory: &Path) -> Result<(), Error> {
        if self.covers(working_directory) {
            return Err(Error::WorkingDirectory(working_directory.to_owned()));
        }
        (0..=2).try_for_each(|fd| self.refuse_descriptor(fd))
    }

    /// As [`refuse_inherited`](Self::refuse_inherited), for one descriptor that CMD will get. A closed one is fine.
    pub fn refuse_descriptor(&self, fd: RawFd) -> Result<(), Error> {
        let link = PathBuf::from(format!("/proc/self/fd/{fd}"));
        let path = match fs::read_link(&link) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::Read { path: link, source }),
        };
        if fs::metadata(&link).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Error::DirectoryDescriptor { fd, path });
        }
        if self.covers(&path) { Err(Error::Descriptor { fd, path }) } else { Ok(()) }
    }

    /// Whether a path that is real outside is one the sandbox does not see.
    fn covers(&self, path: &Path) -> bool {
        self.masks.iter().any(|mask| match mask {
            Mask::Private(place) => path.starts_with(place) && !is_kept(path, &self.keep),
            Mask::Home(place) | Mask::Queues(place) => path.starts_with(place),
            Mask::Hidden(place) | Mask::Socket(place) => path == place,
            Mask::Proc(_) | Mask::Pinned(_) | Mask::ReadOnly(_) => false,
        })
    }

    /// What lies below a directory that is replaced as a whole is gone with it.
    fn drop_what_is_covered(&mut self) {
        let replaced: Vec<PathBuf> = self
            .masks
            .iter()
            .filter_map(|mask| match mask {
                Mask::Private(path) | Mask::Home(path) => Some(path.clone()),
                _ => None,
            })
            .collect();
        self.masks.retain(|mask| match mask {
            Mask::Private(_) | Mask::Home(_) => true,
            kept => !replaced.iter().any(|place| kept.path().starts_with(place)),
        });
    }
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.masks.iter().try_for_each(|mask| writeln!(f, "{mask}"))
    }
}

impl Mask {
    fn is_in_force(&self) -> bool {
        match self {
            Self::Private(_) => Defence::PrivateDirectories.active(),
            Self::Home(_) | Self::Hidden(_) => Defence::SecretMasks.active(),
            Self::Socket(_) => Defence::SocketMasks.active(),
            Self::Proc(_) => Defence::OwnProc.active(),
            Self::Queues(_) => Defence::OwnQueues.active(),
            Self::Pinned(_) | Self::ReadOnly(_) => Defence::ReadOnly.active(),
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (how, path) = match self {
            Self::Private(path) => ("private", path),
            Self::Home(path) | Self::Hidden(path) | Self::Socket(path) => ("hidden", path),
            Self::Proc(path) => ("own proc", path),
            Self::Queues(path) => ("own queues", path),
            Self::Pinned(path) => ("pinned", path),
            Self::ReadOnly(path) => ("read-only", path),
        };
        write!(f, "{how:<10} {}", path.display())
    }
}

/// A proc of the sandbox's own processes over the one of the outer namespace. Before any other mask: see [`mount::proc`].
pub fn mount_proc() -> Result<(), mount::Error> {
    mount::proc(Path::new("/proc"))
}

fn is_kept(path: &Path, keep: &[PathBuf]) -> bool {
    keep.iter().any(|kept| path.starts_with(kept))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}

/// AUTHSOME_HOME wherever it, a part of it, or a file system mounted in it is seen.
fn home_masks(mounts: &Mounts, home: &Path) -> Result<Vec<Mask>, Error> {
    let mut places = places_of_secret(mounts, home)?;
    let inside = mounts.iter().map(|mount| mount.point.as_path()).filter(|point| *point != home && point.starts_with(home));
    places.extend(inside.flat_map(|path| mounts.places(path)));
    // Mounts inside the home go under with it.
    places.retain(|place| place == home || !place.starts_with(home));
    Ok(places.into_iter().map(|place| if place.is_dir() { Mask::Home(place) } else { Mask::Hidden(place) }).collect())
}

fn places_of_secret(mounts: &Mounts, path: &Path) -> Result<Vec<PathBuf>, Error> {
    let places = mounts.places(path);
    if places.is_empty() { Err(Error::NotInMountTable(path.to_owned())) } else { Ok(places) }
}

/// Directories that only this user's own processes share: the login session's, and tmux's sockets.
fn private_directories(request: &Request<'_>) -> Vec<PathBuf> {
    let uid = request.user.uid;
    let tmux = (request.env)("TMUX_TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    [
        (request.env)("XDG_RUNTIME_DIR").map(PathBuf::from),
        Some(PathBuf::from(format!("/run/user/{uid}"))),
        Some(tmux.join(format!("tmux-{uid}"))),
        Some(tmux),
    ]
    .into_iter()
    .flatten()
    .filter_map(|path| path.canonicalize().ok())
    // Neither a directory that others share (TMUX_TMPDIR=/tmp) nor one the user's files are in.
    .filter(|path| is_own_directory(path, uid) && !request.user.home.starts_with(path))
    .collect()
}

/// A directory of the user's that nobody else may enter, as the XDG base directory specification asks of XDG_RUNTIME_DIR.
fn is_own_directory(path: &Path, uid: Uid) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == uid.as_raw() && metadata.mode() & 0o077 == 0)
}

/// The environment of processes outside can be read through any proc of the outer PID namespace.
fn other_procs(mounts: &Mounts) -> impl Iterator<Item = Mask> {
    let procs = mounts.iter().filter(|mount| mount.fs_type == "proc" && mount.root == Path::new("/"));
    procs.filter(|mount| !mount.point.starts_with("/proc") && mount.point.is_dir()).map(|mount| Mask::Proc(mount.point.clone()))
}

/// A message queue opened through a mount of the outer IPC namespace's is that queue (mq_overview(7)).
fn other_queues(mounts: &Mounts) -> impl Iterator<Item = Mask> {
    mounts.iter().filter(|mount| mount.fs_type == "mqueue" && mount.point.is_dir()).map(|mount| Mask::Queues(mount.point.clone()))
}

/// The directories between the user's home and `path`: renamed away, they would take the protected name with them.
fn pins<'a>(path: &'a Path, home: &Path) -> impl Iterator<Item = PathBuf> + 'a {
    let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
    path.ancestors().skip(1).take_while(move |directory| *directory != home && directory.starts_with(&home)).map(Path::to_owned)
}

/// Directories of AUTHSOME_HOME that hold no secret.
const NOT_SECRET: &[&str] = &["providers", "log", "config.toml"];

fn refuse_hard_links(home: &Path) -> Result<(), Error> {
    let read = |path: &Path, source| Error::Read { path: path.to_owned(), source };
    let mut pending = vec![home.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).map_err(|source| read(&directory, source))? {
            let entry = entry.map_err(|source| read(&directory, source))?;
            let kind = entry.file_type().map_err(|source| read(&entry.path(), source))?;
            if directory == home && NOT_SECRET.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                refuse_hard_link(&entry.path())?;
            }
        }
    }
    Ok(())
}

fn refuse_hard_link(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.nlink() > 1 => Err(Error::HardLinks { path: path.to_owned(), links: metadata.nlink() }),
        Ok(_) => Ok(()),
        // Replaced under our eyes, as every write of the vault does: the new one has one link.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}
