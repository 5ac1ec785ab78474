//! Where else a file is seen: the mount table (/proc/pid/mountinfo, proc_pid_mountinfo(5)).

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: u32,
    /// `major:minor` of the file system.
    pub device: String,
    /// The directory (or file) of the file system that is shown here.
    pub root: PathBuf,
    /// Where it is shown.
    pub point: PathBuf,
    pub fs_type: String,
}

/// The mounts of one mount namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Those of the calling process.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    pub(crate) fn parse(table: &[u8]) -> Self {
        Self(table.split(|&byte| byte == b'\n').filter_map(Mount::parse).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// Every path below which `path` or a part of it can be reached, `path` first. `path` is absolute and has no symbolic links.
    /// A path that cannot be looked up is seen nowhere by this user, and has no places.
    pub fn places(&self, path: &Path) -> Vec<PathBuf> {
        let Some(shown_by) = mount_id(path).and_then(|id| self.0.iter().find(|mount| mount.id == id)) else { return Vec::new() };
        let Ok(below) = path.strip_prefix(&shown_by.point) else { return Vec::new() };
        let inner = join(&shown_by.root, below);
        let elsewhere = self
            .0
            .iter()
            .filter(|mount| mount.device == shown_by.device && mount.id != shown_by.id)
            .filter_map(|mount| Some((mount.id, mount.place_of(&inner)?)))
            .filter(|(_, place)| !place.starts_with("/proc") && place != path)
            // Another mount may lie over the place.
            .filter(|(id, place)| mount_id(place) == Some(*id))
            .map(|(_, place)| place);
        std::iter::once(path.to_owned()).chain(elsewhere).collect()
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = text(fields.next()?)?.parse().ok()?;
        let _parent = fields.next()?;
        let device = text(fields.next()?)?.to_owned();
        let root = unescape(fields.next()?);
        let point = unescape(fields.next()?);
        let fs_type = text(fields.skip_while(|field| *field != b"-").nth(1)?)?.to_owned();
        Some(Self { id, device, root, point, fs_type })
    }

    /// Where this mount shows `inner`, a path of its file system, or, when it shows only a part of it, that part.
    fn place_of(&self, inner: &Path) -> Option<PathBuf> {
        match inner.strip_prefix(&self.root) {
            Ok(below) => Some(join(&self.point, below)),
            Err(_) => self.root.starts_with(inner).then(|| self.point.clone()),
        }
    }
}

/// The id of the mount that shows `path`.
fn mount_id(path: &Path) -> Option<u32> {
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// `Path::join` that adds no slash for an empty path.
fn join(base: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { base.to_owned() } else { base.join(below) }
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_table() {
        let table = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            31 27 0:25 /@home/a\\040b /mnt/x\\134y ro,nosuid shared:7 master:2 - btrfs /dev/sda1 rw,space_cache\n\
            garbage\n\
            32 27 0:4 net:[4026531840] /run/netns/a rw - nsfs nsfs rw\n";
        let mounts = Mounts::parse(table);
        let rows: Vec<_> =
            mounts.iter().map(|m| (m.id, m.device.as_str(), m.root.to_str(), m.point.to_str(), m.fs_type.as_str())).collect();
        assert_eq!(
            rows,
            [
                (27, "254:0", Some("/"), Some("/"), "ext4"),
                (31, "0:25", Some("/@home/a b"), Some("/mnt/x\\y"), "btrfs"),
                (32, "0:4", Some("net:[4026531840]"), Some("/run/netns/a"), "nsfs"),
            ]
        );
    }

    #[test]
    fn place_of_a_path_in_a_mount() {
        for (root, point, inner, place) in [
            ("/", "/", "/home/u/.authsome", Some("/home/u/.authsome")),
            ("/", "/mnt/disk", "/home/u/.authsome", Some("/mnt/disk/home/u/.authsome")),
            ("/home", "/srv/h", "/home/u/.authsome", Some("/srv/h/u/.authsome")),
            ("/home/u/.authsome", "/backup", "/home/u/.authsome", Some("/backup")),
            ("/home/u/.authsome/vault", "/v", "/home/u/.authsome", Some("/v")),
            ("/home/u/.authsome-old", "/v", "/home/u/.authsome", None),
            ("/var", "/v", "/home/u/.authsome", None),
        ] {
            let mount = Mount { id: 1, device: "8:1".into(), root: root.into(), point: point.into(), fs_type: "ext4".into() };
            assert_eq!(mount.place_of(Path::new(inner)).as_deref(), place.map(Path::new), "{root} at {point}");
        }
    }

    #[test]
    fn escapes() {
        for (field, path) in
            [("/a\\040b", "/a b"), ("/a\\011\\012\\134", "/a\t\n\\"), ("/a\\04", "/a\\04"), ("/a\\09x", "/a\\09x"), ("\\", "\\")]
        {
            assert_eq!(unescape(field.as_bytes()), Path::new(path));
        }
    }

    proptest! {
        #[test]
        fn any_table_is_read(table: Vec<u8>) {
            Mounts::parse(&table);
        }

        #[test]
        fn escaped_paths_come_back(path in "[a-z \t\n\\\\]{0,20}") {
            let escaped: String = path.chars().map(|c| if c.is_ascii_lowercase() { c.to_string() } else { format!("\\{:03o}", c as u32) }).collect();
            prop_assert_eq!(unescape(escaped.as_bytes()), PathBuf::from(path));
        }
    }
}
