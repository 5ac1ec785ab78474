//! A directory with all that is in it and something more, over the directory itself.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{
    super::mask::{Mounts, mount},
    Error, set_enterable,
    system::link_authority,
    write,
};

/// The directory's files as they were, seen inside what covers it.
const ORIGINAL: &str = ".original";
/// Our certificate in what covers a directory.
const COPY: &str = ".authsome.pem";
/// Up to so many names are linked, each at the cost of a system call or two. An overlay is one mount whatever their number, but the run's end then
/// waits for the kernel to see all CPUs pass (`synchronize_rcu_expedited` of its unmounting): 0.1 ms, and several on a busy machine.
const LINKED: usize = 32;

/// Covers `directory` by one with the same names and those that `add` makes in the directory it is given, which win. `work` is a directory of the
/// sandbox's own.
pub fn cover(directory: &Path, work: &Path, add: &dyn Fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let names = fs::read_dir(directory).map_err(|source| Error::Read { path: directory.to_owned(), source })?;
    if names.take(LINKED + 1).count() > LINKED && overlay(directory, work, add)? {
        return Ok(());
    }
    by_links(directory, work, add)
}

/// `false` where it cannot be.
fn overlay(directory: &Path, work: &Path, add: &dyn Fn(&Path) -> Result<(), Error>) -> Result<bool, Error> {
    let mounts = Mounts::read().map_err(|source| Error::Read { path: "/proc/self/mountinfo".into(), source })?;
    // An overlay does not show what is mounted below a layer.
    if mounts.iter().any(|mount| mount.point != directory && mount.point.starts_with(directory)) {
        return Ok(false);
    }
    let failed = |path: &Path, source| Error::Create { path: path.to_owned(), source };
    let layer = tempfile::Builder::new().prefix("layer-").tempdir_in(work).map_err(|source| failed(work, source))?.keep();
    set_enterable(&layer)?;
    add(&layer)?;
    // Kernels before 5.11 have none for user namespaces.
    Ok(mount::overlay(&layer, directory).is_ok())
}

/// Links are repeated, files and directories are linked to [`ORIGINAL`]. It is put together in `work` and moved into place whole.
fn by_links(directory: &Path, work: &Path, add: &dyn Fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let stage = work.join("stage");
    let original = stage.join(ORIGINAL);
    let failed = |path: &Path, source| Error::Create { path: path.to_owned(), source };
    fs::create_dir_all(&stage).map_err(|source| failed(&stage, source))?;
    mount::tmpfs(&stage, "mode=0755")?;
    fs::create_dir(&original).map_err(|source| failed(&original, source))?;
    set_enterable(&original)?;
    mount::bind_read_only(directory, &original)?;
    add(&stage)?;
    for entry in fs::read_dir(directory).map_err(|source| Error::Read { path: directory.to_owned(), source })? {
        let entry = entry.map_err(|source| Error::Read { path: directory.to_owned(), source })?;
        let name = entry.file_name();
        let target = link_target(&entry, &name).map_err(|source| Error::Read { path: entry.path(), source })?;
        match symlink(target, stage.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&stage.join(&name), error)),
            _ => {}
        }
    }
    mount::seal(&stage)?;
    Ok(mount::move_to(&stage, directory)?)
}

fn link_target(entry: &fs::DirEntry, name: &OsStr) -> io::Result<PathBuf> {
    if entry.file_type()?.is_symlink() { fs::read_link(entry.path()) } else { Ok(Path::new(ORIGINAL).join(name)) }
}

/// Adds our certificate to a directory of hashed names.
pub fn cover_hashed(directory: &Path, work: &Path, authority_file: &Path, common_name: &str) -> Result<(), Error> {
    cover(directory, work, &|layer| {
        copy_authority(authority_file, layer)?;
        link_authority(layer, directory, Path::new(COPY), common_name)
    })
}

/// A copy: the sandbox of a sandbox may show this directory and not the run's.
fn copy_authority(authority_file: &Path, directory: &Path) -> Result<(), Error> {
    let pem = fs::read(authority_file).map_err(|source| Error::Read { path: authority_file.to_owned(), source })?;
    write(&directory.join(COPY), &pem)
}
