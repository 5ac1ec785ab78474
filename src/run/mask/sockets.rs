//! Sockets with a path: doors to processes outside the sandbox.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::FileTypeExt},
    path::{Path, PathBuf},
};

/// Directories whose sockets are taken along even when /proc/net/unix does not name them: a server in another network namespace.
const WELL_KNOWN: &[&str] = &[
    "/run",
    "/run/dbus",
    "/run/systemd",
    "/run/systemd/resolve",
    "/run/nscd",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/libvirt",
    "/var/lib/lxd",
    "/var/lib/incus",
];

/// Every socket with a path that is bound now, each real path once, and those beside it in the same directory: ssh binds its control
/// socket under a temporary name and links it into place, so the table does not know its name.
pub fn bound(also_in: &[PathBuf]) -> io::Result<BTreeSet<PathBuf>> {
    let table = fs::read("/proc/net/unix")?;
    let (absolute, relative): (Vec<&Path>, Vec<&Path>) = parse(&table).into_iter().partition(|path| path.is_absolute());
    let mut named: BTreeSet<PathBuf> = absolute.into_iter().map(Path::to_owned).collect();
    if !relative.is_empty() {
        named.extend(working_directories()?.iter().flat_map(|directory| relative.iter().map(|path| directory.join(path))));
    }
    let directories: BTreeSet<PathBuf> = named
        .iter()
        .filter_map(|path| path.parent())
        .chain(WELL_KNOWN.iter().map(Path::new))
        .chain(also_in.iter().map(PathBuf::as_path))
        .filter_map(|directory| directory.canonicalize().ok())
        .collect();
    // By name as well: a directory may be searched by a user who cannot list it.
    let by_name = named.iter().filter_map(|path| path.canonicalize().ok()).filter(|path| is_socket(path));
    Ok(by_name.chain(directories.iter().flat_map(|directory| in_directory(directory))).collect())
}

/// Where a server that bound a relative name may stand: the kernel tells neither which process that is nor where it stood.
fn working_directories() -> io::Result<BTreeSet<PathBuf>> {
    let processes = fs::read_dir("/proc")?.flatten();
    Ok(processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok()).collect())
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// None in a directory that is gone or cannot be listed.
fn in_directory(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket())).map(|entry| entry.path()).collect()
}

/// The paths of /proc/net/unix as they were bound (proc_net(5)): the eighth column to the end of the line. `@` starts an abstract name.
pub(crate) fn parse(table: &[u8]) -> BTreeSet<&Path> {
    const COLUMNS_BEFORE_PATH: usize = 7;
    table
        .split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let mut rest = line;
            for _ in 0..COLUMNS_BEFORE_PATH {
                let rest_of_column = rest.trim_ascii_start();
                let end = rest_of_column.iter().position(|&byte| byte == b' ')?;
                rest = rest_of_column.get(end..)?;
            }
            rest.get(1..).filter(|path| !matches!(path.first(), None | Some(b'@'))).map(|path| Path::new(OsStr::from_bytes(path)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            00000000f28f69d5: 00000003 00000000 00000000 0001 03  1195\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 21342 /run/user/1000/bus\n\
            0000000000000000: 00000002 00000000 00010000 0001 01    12 /tmp/with space/s\n\
            0000000000000000: 00000002 00000000 00010000 0001 01    13 @/tmp/.X11-unix/X0\n\
            0000000000000000: 00000002 00000000 00010000 0001 01    14 relative/s\n\
            short\n";
        let paths: Vec<_> = parse(table).into_iter().collect();
        assert_eq!(paths, ["/run/user/1000/bus", "/tmp/with space/s", "relative/s"].map(Path::new));
    }
}
