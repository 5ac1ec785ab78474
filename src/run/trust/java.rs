//! Java's key stores of roots (`cacerts`) on this machine.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Debian's and Fedora's shared stores; Java installations have links to them or their own.
const SHARED: &[&str] = &["/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts"];
const INSTALLATIONS: &str = "/usr/lib/jvm";
const IN_INSTALLATION: &[&str] = &["lib/security/cacerts", "jre/lib/security/cacerts"];

/// Each store of roots on this machine by its real path, once.
pub fn stores(java_home: Option<&Path>) -> BTreeSet<PathBuf> {
    let installed = fs::read_dir(INSTALLATIONS).into_iter().flatten().flatten().map(|entry| entry.path());
    let in_installations =
        installed.chain(java_home.map(Path::to_owned)).flat_map(|home| IN_INSTALLATION.iter().map(move |name| home.join(name)));
    let candidates = SHARED.iter().map(PathBuf::from).chain(in_installations);
    let there = candidates.filter(|path| path.is_file());
    there.filter_map(|path| path.canonicalize().ok()).filter(|path| !path.starts_with("/proc")).collect()
}
