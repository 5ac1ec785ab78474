//! Files that hold secrets: private from the moment they exist, replaced whole or not at all.
use super::VaultError;
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};
use zeroize::Zeroizing;

/// A record is a few kilobytes; an access token with many claims some tens of them.
const MAX_FILE: u64 = 1 << 20;

/// Prefix of files under way. One left by a killed process is removed by the next change.
const TEMPORARY: &str = ".new-";

/// Makes a directory (and those above it) that only its owner may enter; a looser one of ours is tightened.
pub fn create_dir(path: &Path) -> Result<(), VaultError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(VaultError::io("create", path))?;
    let mode = fs::metadata(path).map_err(VaultError::io("read", path))?.mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(VaultError::io("protect", path))?;
    }
    Ok(())
}

/// The whole of a file that has one name and is not reached through a symbolic link; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
    read_with(path, libc::O_NOFOLLOW)
}

/// As [`read`], for a file that is not ours: where secrets are mounted by others, names are symbolic links.
pub fn read_elsewhere(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
    read_with(path, 0)
}

fn read_with(path: &Path, flags: i32) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
    // O_NONBLOCK: a FIFO in its place must not hang us.
    let file = match OpenOptions::new().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(VaultError::io("read", path))?,
    };
    let meta = file.metadata().map_err(VaultError::io("read", path))?;
    let path_buf = || path.to_owned();
    if !meta.is_file() {
        return Err(VaultError::NotAFile { path: path_buf() });
    }
    if meta.nlink() > 1 {
        return Err(VaultError::HardLinked { path: path_buf(), links: meta.nlink() });
    }
    if meta.len() > MAX_FILE {
        return Err(VaultError::TooLarge { path: path_buf(), limit: MAX_FILE });
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(meta.len() as usize + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(VaultError::io("read", path))?;
    Ok(Some(bytes))
}

/// Puts `bytes` in place of what is there, or of nothing: after a crash the old or the new content is found, whole.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
    let (dir, temp) = write_beside(path, bytes)?;
    temp.persist(path).map_err(|e| VaultError::io("replace", path)(e.error))?;
    sync_dir(dir)
}

/// As [`replace`], but an existing file is an error.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
    let (dir, temp) = write_beside(path, bytes)?;
    temp.persist_noclobber(path).map_err(|e| VaultError::io("create", path)(e.error))?;
    sync_dir(dir)
}

fn write_beside<'a>(path: &'a Path, bytes: &[u8]) -> Result<(&'a Path, tempfile::NamedTempFile), VaultError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut temp = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(dir)
        .map_err(VaultError::io("write in", dir))?;
    temp.write_all(bytes).and_then(|()| temp.as_file().sync_all()).map_err(VaultError::io("write", path))?;
    Ok((dir, temp))
}

/// Deletes a file; false if there was none.
pub fn remove(path: &Path) -> Result<bool, VaultError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(path.parent().unwrap_or(Path::new("."))).map(|()| true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(VaultError::io("remove", path)(error)),
    }
}

/// A rename is durable once its directory is (fsync(2)).
fn sync_dir(dir: &Path) -> Result<(), VaultError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(VaultError::io("sync", dir))
}

/// Waits for the exclusive lock on `path`, held until the file is dropped (flock(2)).
pub fn lock(path: &Path) -> Result<File, VaultError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(VaultError::io("open", path))?;
    file.lock().map_err(VaultError::io("lock", path))?;
    Ok(file)
}

/// Removes what a killed process left half written. Only while holding the lock: nobody else is writing then.
pub fn sweep(dir: &Path) -> Result<(), VaultError> {
    for entry in fs::read_dir(dir).map_err(VaultError::io("read", dir))?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_private_and_leaves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().as_slice(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn create_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        create(&path, b"one").unwrap();
        assert!(create(&path, b"two").unwrap_err().to_string().starts_with("cannot create"));
        assert_eq!(read(&path).unwrap().unwrap().as_slice(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_one_plain_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("plain"), b"x").unwrap();
        fs::hard_link(at("plain"), at("second")).unwrap();
        std::os::unix::fs::symlink(at("plain"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&at("plain")), Err(VaultError::HardLinked { links: 2, .. })));
        assert!(matches!(read(&at("link")), Err(VaultError::Io { .. })));
        assert!(matches!(read_elsewhere(&at("link")), Err(VaultError::HardLinked { links: 2, .. })));
        assert!(matches!(read(&at("fifo")), Err(VaultError::NotAFile { .. })));
        assert!(matches!(read(dir.path()), Err(VaultError::NotAFile { .. })));
        assert!(read(&at("none")).unwrap().is_none());
    }

    #[test]
    fn sweep_takes_only_what_was_under_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".new-abc"), b"").unwrap();
        fs::write(dir.path().join("kept.age"), b"").unwrap();
        sweep(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kept.age"]);
    }
}
