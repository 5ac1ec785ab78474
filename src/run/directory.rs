//! The directory of a run that has no mounts of its own. It is among the temporary files and goes with the run, or with the user's next one
//! where the supervisor was killed: the lock on it (flock(2)) ends with its holder, however that ends.

use std::{
    env,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::unistd::geteuid;
use tempfile::TempDir;

const PREFIX: &str = "authsome-run-";
/// Whoever may write in a directory may remove only what is theirs (S_ISVTX, inode(7)).
const STICKY: u32 = 0o1000;

/// Entered by its owner alone. Dropping it removes it, and only then unlocks it.
pub struct Directory {
    directory: TempDir,
    _lock: Option<File>,
}

impl Directory {
    pub fn create() -> io::Result<Self> {
        Self::create_in(&env::temp_dir())
    }

    fn create_in(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(parent)?;
            let lock = match lock(directory.path()) {
                Ok(Some(lock)) => Some(lock),
                // Another run took it for a dead one's before it was locked.
                Ok(None) => continue,
                // No locks on directories here, as on NFS: nobody sweeps either.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::EOPNOTSUPP | libc::ENOLCK)) => None,
                Err(error) => return Err(error),
            };
            return Ok(Self { directory, _lock: lock });
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what this user's dead runs left in `parent`; what cannot be removed is left to the next. Nothing is touched where somebody else might
/// put another directory in the place of the one that was looked at.
fn sweep(parent: &Path) {
    let user = geteuid().as_raw();
    let is_safe = |parent: fs::Metadata| [0, user].contains(&parent.uid()) && (parent.mode() & 0o022 == 0 || parent.mode() & STICKY != 0);
    if !fs::metadata(parent).is_ok_and(is_safe) {
        return;
    }
    let is_ours = |found: fs::Metadata| found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0;
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && entry.metadata().is_ok_and(is_ours)
            && let Ok(Some(_lock)) = lock(&entry.path())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// `None`: somebody else has it, or has removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let held = file.metadata()?;
    let is_there = fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino()));
    Ok(is_there.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::fs::{chown, symlink},
        path::PathBuf,
    };

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A directory with a file in it, as a run that was killed leaves one.
    fn left(parent: &Path, name: &str) -> PathBuf {
        let path = parent.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("ca.pem"), "certificate").unwrap();
        set_mode(&path, 0o700);
        path
    }

    #[test]
    fn the_next_run_removes_what_a_dead_one_left_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let live = Directory::create_in(parent.path()).unwrap();
        assert_eq!(fs::metadata(live.path()).unwrap().mode() & 0o777, 0o700);
        let dead = left(parent.path(), "authsome-run-dead");
        let of_another_name = left(parent.path(), "authsome-demo-x");
        let open_to_others = left(parent.path(), "authsome-run-open");
        set_mode(&open_to_others, 0o755);
        let link = parent.path().join("authsome-run-link");
        symlink(&of_another_name, &link).unwrap();
        let file = parent.path().join("authsome-run-file");
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o600);
        let mut kept = vec![live.path().to_owned(), of_another_name.join("ca.pem"), open_to_others.join("ca.pem"), link, file];
        if geteuid().is_root() {
            let of_another_user = left(parent.path(), "authsome-run-other");
            chown(&of_another_user, Some(1), Some(1)).unwrap();
            kept.push(of_another_user.join("ca.pem"));
        }

        let next = Directory::create_in(parent.path()).unwrap();
        assert!(!dead.exists());
        kept.push(next.path().to_owned());
        assert_eq!(kept.iter().filter(|path| fs::symlink_metadata(path).is_err()).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
        let its_own = next.path().to_owned();
        drop(next);
        assert!(!its_own.exists() && live.path().exists());
    }

    #[test]
    fn nothing_is_removed_where_others_could_have_put_it() {
        let parent = tempfile::tempdir().unwrap();
        let dead = left(parent.path(), "authsome-run-dead");
        set_mode(parent.path(), 0o777);
        sweep(parent.path());
        assert!(dead.exists());
        set_mode(parent.path(), 0o1777);
        sweep(parent.path());
        assert!(!dead.exists());
    }

    #[test]
    fn a_lock_on_a_directory_that_is_gone_is_none() {
        let parent = tempfile::tempdir().unwrap();
        let path = left(parent.path(), "authsome-run-x");
        let held = lock(&path).unwrap().unwrap();
        assert!(lock(&path).unwrap().is_none());
        fs::remove_dir_all(&path).unwrap();
        assert!(lock(&path).unwrap().is_none());
        fs::create_dir(&path).unwrap();
        assert!(lock(&path).unwrap().is_some(), "the held one is another");
        drop(held);
    }
}
