//! Puts a [`Survey`] in force, in the sandbox's mount namespace, with every capability over it.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag, open},
    sys::stat::{Mode, SFlag, mknod},
    unistd::fchownat,
};

use crate::{defence::Defence, run::MARKER};

use super::{Error, Mask, Survey, mount};

/// Bound over secrets.
const EMPTY: &str = ".empty";
/// Bound over sockets: a connect is refused, as when the server is not running.
const DEAD_SOCKET: &str = ".socket";

/// The masked home can be written by us, the rest of the masks is not yet in force.
#[must_use = "the masks are not in force before `finish`"]
pub struct Covered<'a> {
    survey: &'a Survey,
}

impl Survey {
    /// Covers the private directories and AUTHSOME_HOME. What the run itself shows inside (certificates) is then written to
    /// [`Covered::home`], and [`Covered::finish`] does the rest.
    pub fn apply(&self) -> Result<Covered<'_>, Error> {
        let kept = self.open_kept()?;
        for mask in self.masks() {
            if let Mask::Private(path) = mask {
                self.make_directory(path)?;
                mount::private_tmpfs(path, self.user.uid, self.user.gid)?;
            }
        }
        for (path, file) in kept {
            self.show_kept(&path, &file)?;
        }
        self.make_directory(&self.home)?;
        mount::private_tmpfs(&self.home, self.user.uid, self.user.gid)?;
        mount::write(&self.home.join(MARKER), self.run_id.as_bytes())?;
        mount::write(&self.home.join(EMPTY), b"")?;
        make_dead_socket(&self.home.join(DEAD_SOCKET))?;
        Ok(Covered { survey: self })
    }

    /// Handles on the paths to keep that a private directory is about to cover.
    fn open_kept(&self) -> Result<Vec<(PathBuf, OwnedFd)>, Error> {
        let below = |path: &&PathBuf| self.masks.iter().any(|mask| matches!(mask, Mask::Private(place) if path.starts_with(place)));
        self.keep.iter().filter(below).map(|path| Ok((path.clone(), open_path(path)?))).collect()
    }

    fn show_kept(&self, path: &Path, file: &OwnedFd) -> Result<(), Error> {
        let from = descriptor(file);
        if from.is_dir() {
            self.make_directory(path)?;
        } else {
            path.parent().map_or(Ok(()), |parent| self.make_directory(parent))?;
            mount::write(path, b"")?;
        }
        Ok(mount::bind(&from, path)?)
    }

    /// A directory that a mount of ours may have covered: made again, it is in a tmpfs of ours and the user's.
    fn make_directory(&self, path: &Path) -> Result<(), Error> {
        let missing: Vec<&Path> = path.ancestors().take_while(|directory| !directory.exists()).collect();
        for directory in missing.into_iter().rev() {
            let failed = |source| mount::Error::Write { path: directory.to_owned(), source };
            DirBuilder::new().mode(0o700).create(directory).map_err(failed)?;
            let (uid, gid) = (Some(self.user.uid), Some(self.user.gid));
            fchownat(AT_FDCWD, directory, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|errno| failed(errno.into()))?;
        }
        Ok(())
    }
}

impl Covered<'_> {
    /// The tmpfs over AUTHSOME_HOME. The user owns it; it is read-only once the masks are in force.
    pub fn home(&self) -> &Path {
        &self.survey.home
    }

    /// Mounts the remaining masks, makes the home read-only and looks at each place whether it is what is seen there now.
    pub fn finish(self) -> Result<(), Error> {
        let home = self.home();
        for mask in self.survey.masks() {
            self.put_in_force(mask)?;
        }
        if !Defence::HomeMask.active() {
            return Ok(mount::take_off(home)?);
        }
        mount::seal(home)?;
        self.survey.masks().iter().try_for_each(|mask| self.verify(mask))
    }

    fn put_in_force(&self, mask: &Mask) -> Result<(), Error> {
        let home = self.home();
        match mask {
            Mask::Private(_) => {}
            Mask::Home(place) if place == home => {}
            Mask::Home(place) => mount::bind(home, place)?,
            Mask::Hidden(path) => cover_if_there(&home.join(EMPTY), path)?,
            Mask::Socket(path) => cover_if_there(&home.join(DEAD_SOCKET), path)?,
            Mask::Proc(path) => mount::proc(path)?,
            Mask::Queues(path) => mount::queues(path)?,
            Mask::Pinned(path) => mount::bind(path, path)?,
            Mask::ReadOnly(path) => keep_as_is(path)?,
        }
        Ok(())
    }

    fn verify(&self, mask: &Mask) -> Result<(), Error> {
        let home = self.home();
        let seen = match mask {
            Mask::Home(place) => fs::read(place.join(MARKER)).is_ok_and(|id| id == self.survey.run_id.as_bytes()),
            Mask::Hidden(path) => is_gone_or(path, &home.join(EMPTY)),
            Mask::Socket(path) => is_gone_or(path, &home.join(DEAD_SOCKET)),
            Mask::Private(_) | Mask::Proc(_) | Mask::Queues(_) | Mask::Pinned(_) | Mask::ReadOnly(_) => true,
        };
        if seen { Ok(()) } else { Err(Error::NotMasked(mask.path().to_owned())) }
    }
}

impl Mask {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Private(path)
            | Self::Home(path)
            | Self::Hidden(path)
            | Self::Socket(path)
            | Self::Proc(path)
            | Self::Queues(path)
            | Self::Pinned(path)
            | Self::ReadOnly(path) => path,
        }
    }
}

/// Binds what `path` shows over `path` itself, read-only. Through a handle on the name: were it a symbolic link, a mount over the file it
/// points to would leave the link to be replaced.
fn keep_as_is(path: &Path) -> Result<(), Error> {
    let name = open_path(path)?;
    mount::bind(path, &descriptor(&name))?;
    Ok(mount::read_only(path)?)
}

fn open_path(path: &Path) -> Result<OwnedFd, Error> {
    open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|source| Error::Open { path: path.to_owned(), source })
}

/// A path that leads to exactly the opened file.
fn descriptor(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A socket that was never bound to a listener, which every user may try.
fn make_dead_socket(path: &Path) -> Result<(), mount::Error> {
    let failed = |source| mount::Error::Write { path: path.to_owned(), source };
    mknod(path, SFlag::S_IFSOCK, Mode::S_IRUSR | Mode::S_IWUSR, 0).map_err(|errno| failed(errno.into()))?;
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed)
}

/// Whether `path` is the same file as `cover`, or nothing.
fn is_gone_or(path: &Path, cover: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (fs::symlink_metadata(path), fs::symlink_metadata(cover)) {
        (Ok(seen), Ok(cover)) => id(seen) == id(cover),
        (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
        (Ok(_), Err(_)) => false,
    }
}

/// A socket may be gone since the survey: what is not there cannot be covered and need not be.
fn cover_if_there(cover: &Path, path: &Path) -> Result<(), mount::Error> {
    match mount::bind(cover, path) {
        Err(_) if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::mask::User;
    use nix::unistd::{Gid, Uid};

    #[test]
    fn a_place_that_is_not_masked_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let user = User { uid: Uid::from_raw(1000), gid: Gid::from_raw(1000), home: directory.path().into() };
        let survey =
            Survey { user, run_id: "run-1".into(), home: directory.path().into(), keep: Vec::new(), masks: Vec::new(), unmade: Vec::new() };
        let covered = Covered { survey: &survey };
        for name in [EMPTY, "secret", "socket"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        make_dead_socket(&directory.path().join(DEAD_SOCKET)).unwrap();
        let at = |name: &str| directory.path().join(name);
        for mask in [Mask::Home(at("")), Mask::Hidden(at("secret")), Mask::Socket(at("socket"))] {
            assert!(matches!(covered.verify(&mask), Err(Error::NotMasked(_))), "{mask}");
        }
        fs::write(at(MARKER), "run-2").unwrap();
        assert!(covered.verify(&Mask::Home(at(""))).is_err(), "another run's marker");
        fs::write(at(MARKER), "run-1").unwrap();
        for mask in [Mask::Home(at("")), Mask::Hidden(at(EMPTY)), Mask::Socket(at(DEAD_SOCKET)), Mask::Hidden(at("gone"))] {
            covered.verify(&mask).unwrap();
        }
    }
}
