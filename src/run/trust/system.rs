//! The machine's own stores of roots: bundle files and directories of hashed names.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

use super::{Error, cover, mount, subject_hash::subject_hash};

/// Debian, Fedora (two), SUSE, Alpine, SUSE's generated one.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
];

/// Where OpenSSL looks a root up by the hash of its subject (openssl-rehash(1)).
const HASHED_DIRECTORIES: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted/pem/directory-hash"];

/// Our certificate in what covers a directory.
const COPY: &str = ".authsome.pem";

/// Each bundle file by its real path, once.
pub fn bundles() -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let real = BUNDLES.iter().filter_map(|path| Path::new(path).canonicalize().ok());
    real.filter(|path| fs::metadata(path).is_ok_and(|found| found.is_file() && seen.insert((found.dev(), found.ino())))).collect()
}

/// Each by its real path, once.
pub fn hashed_directories() -> BTreeSet<PathBuf> {
    HASHED_DIRECTORIES.iter().filter_map(|path| Path::new(path).canonicalize().ok()).filter(|path| path.is_dir()).collect()
}

/// The certificates (and nothing else) of a file, or of the files of a directory, each once. None where nothing can be read: then these
/// were no roots before, either.
pub fn roots_at(path: &Path) -> String {
    let files = match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![path.to_owned()],
    };
    let mut seen = BTreeSet::new();
    let mut roots = String::new();
    for text in files.iter().filter_map(|file| read_text(file)) {
        for certificate in certificates(&text) {
            if seen.insert(certificate.to_owned()) {
                roots.extend([certificate, "\n"]);
            }
        }
    }
    roots
}

/// Far above any bundle of roots (the largest, of 150 roots, has 0.3 MB), in bytes.
const MAX_ROOTS_FILE: u64 = 16 << 20;

fn read_text(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= MAX_ROOTS_FILE).then(|| fs::read_to_string(path).ok())?
}

/// The encapsulated certificates of a text (RFC 7468; `TRUSTED CERTIFICATE` is OpenSSL's, with its own trust settings).
pub(crate) fn certificates(text: &str) -> impl Iterator<Item = &str> {
    const BEGIN: &str = "-----BEGIN ";
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(BEGIN)?;
            let from_start = rest.get(start..)?;
            let after_begin = from_start.get(BEGIN.len()..)?;
            let label = after_begin.get(..after_begin.find("-----")?)?;
            let end_line = format!("-----END {label}-----");
            let Some(end) = from_start.find(&end_line) else {
                rest = after_begin;
                continue;
            };
            let (block, after) = from_start.split_at_checked(end + end_line.len())?;
            rest = after;
            if matches!(label, "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE") {
                return Some(block);
            }
        }
    })
}

/// Adds our certificate to a directory of hashed names.
pub fn cover_hashed(directory: &Path, work: &Path, authority_file: &Path, common_name: &str) -> Result<(), Error> {
    let add = |layer: &Path| {
        copy_authority(authority_file, layer)?;
        link_authority(layer, directory, Path::new(COPY), common_name)
    };
    // Kernels before 5.11 have no overlay for user namespaces.
    cover::overlay(directory, work, &add).or_else(|_| cover::links(directory, work, &add))
}

/// A copy: the sandbox of a sandbox may show this directory and not the run's.
fn copy_authority(authority_file: &Path, directory: &Path) -> Result<(), Error> {
    let pem = fs::read(authority_file).map_err(|source| Error::Read { path: authority_file.to_owned(), source })?;
    Ok(mount::write(&directory.join(COPY), &pem)?)
}

/// Adds `HASH.N` for our certificate, N being the first number that no other root of `roots` with that hash has.
pub fn link_authority(directory: &Path, roots: &Path, authority_file: &Path, common_name: &str) -> Result<(), Error> {
    let hash = subject_hash(common_name);
    let mut number = 0;
    while fs::symlink_metadata(roots.join(format!("{hash:08x}.{number}"))).is_ok() {
        number += 1;
    }
    let path = directory.join(format!("{hash:08x}.{number}"));
    symlink(authority_file, &path).map_err(|source| Error::Create { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_certificates_are_taken() {
        let text = "# comment\n-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n\
            -----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\nroot:x:0\n\
            -----BEGIN TRUSTED CERTIFICATE-----\r\nBB\r\n-----END TRUSTED CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nunfinished";
        let found: Vec<_> = certificates(text).collect();
        assert_eq!(
            found,
            [
                "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----",
                "-----BEGIN TRUSTED CERTIFICATE-----\r\nBB\r\n-----END TRUSTED CERTIFICATE-----"
            ]
        );
    }

    #[test]
    fn certificate_after_an_unfinished_one() {
        let text = "-----BEGIN X-----\n-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----";
        assert_eq!(certificates(text).count(), 1);
    }

    #[test]
    fn directory_gives_each_root_once() {
        let directory = tempfile::tempdir().unwrap();
        let one = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n";
        let two = "-----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----\n";
        fs::write(directory.path().join("a.pem"), one).unwrap();
        fs::write(directory.path().join("all.crt"), [one, two].concat()).unwrap();
        symlink("a.pem", directory.path().join("01234567.0")).unwrap();
        let roots = roots_at(directory.path());
        assert_eq!((roots.matches("AA").count(), roots.matches("BB").count()), (1, 1));
        assert_eq!(roots_at(&directory.path().join("none")), "");
    }

    #[test]
    fn a_root_with_the_same_hash_keeps_its_number() {
        let (roots, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let named = |number: u8| format!("{:08x}.{number}", subject_hash("authsome run 7f"));
        fs::write(roots.path().join(named(0)), "another").unwrap();
        link_authority(directory.path(), roots.path(), Path::new("own.pem"), "authsome run 7f").unwrap();
        assert_eq!(fs::read_link(directory.path().join(named(1))).unwrap(), Path::new("own.pem"));
        assert!(fs::symlink_metadata(directory.path().join(named(0))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(-----(BEGIN|END) (CERTIFICATE|X)?-----|\\PC|\n){0,20}") {
            certificates(&text).for_each(drop);
        }
    }
}
