//! Covering a directory by one that has the same names and some more.

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

/// By an overlay: one mount, whatever the number of names. The names that `add` makes in the directory it is given win. `work` is a directory of the
/// sandbox's own. The end of a run waits for the kernel to see every CPU pass for each overlay (`synchronize_rcu_expedited` of its unmounting):
/// 0.1 ms, and several on a busy machine.
pub fn overlay(directory: &Path, work: &Path, add: &dyn Fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let mounts = Mounts::read().map_err(|source| Error::Read { path: "/proc/self/mountinfo".into(), source })?;
    // An overlay does not show what is mounted below a layer.
    if mounts.iter().any(|mount| mount.point != directory && mount.point.starts_with(directory)) {
        return Err(Error::HoldsMounts(directory.to_owned()));
    }
    let failed = |path: &Path, source| Error::Create { path: path.to_owned(), source };
    let layer = tempfile::Builder::new().prefix("layer-").tempdir_in(work).map_err(|source| failed(work, source))?.keep();
    set_enterable(&layer)?;
    add(&layer)?;
    Ok(mount::overlay(&layer, directory)?)
}

/// As [`overlay`], by a system call or two for each name: links are repeated, files and directories are linked to [`ORIGINAL`]. A program started by
/// such a link finds itself there. It is put together in `work` and moved into place whole.
pub fn links(directory: &Path, work: &Path, add: &dyn Fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
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
    let add = |layer: &Path| {
        copy_authority(authority_file, layer)?;
        link_authority(layer, directory, Path::new(COPY), common_name)
    };
    // Kernels before 5.11 have no overlay for user namespaces.
    overlay(directory, work, &add).or_else(|_| links(directory, work, &add))
}

/// A copy: the sandbox of a sandbox may show this directory and not the run's.
fn copy_authority(authority_file: &Path, directory: &Path) -> Result<(), Error> {
    let pem = fs::read(authority_file).map_err(|source| Error::Read { path: authority_file.to_owned(), source })?;
    write(&directory.join(COPY), &pem)
}
