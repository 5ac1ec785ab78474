//! Browsers have roots of their own; more of them can be named in files of policies, which are for the administrator of a machine.
//!
//! Chromium and its kin read every file of a directory (policy `CACertificates`, from version 131 on), Firefox reads one
//! (`Certificates.Install`). No database has to be written for that, and the user's own ones are left alone.

use std::{collections::BTreeSet, fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Error, LeftAlone, cover, set_enterable, write};
use crate::trust_store;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chromium,
    Firefox,
}

/// Directory of policies, and what is there where that browser is. Firefox prefers the first of its own that has a file.
const BROWSERS: &[(Kind, &str, &str)] = &[
    (Kind::Chromium, "/etc/chromium/policies/managed", "/usr/lib/chromium"),
    (Kind::Chromium, "/etc/chromium/policies/managed", "/usr/lib64/chromium-browser"),
    (Kind::Chromium, "/etc/opt/chrome/policies/managed", "/opt/google/chrome"),
    (Kind::Chromium, "/etc/opt/edge/policies/managed", "/opt/microsoft/msedge"),
    (Kind::Chromium, "/etc/brave/policies/managed", "/opt/brave.com"),
    (Kind::Firefox, "/etc/firefox/policies", "/etc/firefox"),
    (Kind::Firefox, "/usr/lib/firefox/distribution", "/usr/lib/firefox"),
    (Kind::Firefox, "/usr/lib64/firefox/distribution", "/usr/lib64/firefox"),
    (Kind::Firefox, "/usr/lib/firefox-esr/distribution", "/usr/lib/firefox-esr"),
    (Kind::Firefox, "/opt/firefox/distribution", "/opt/firefox"),
];

/// Holds no programs. As a whole it may not be covered, as nothing may that other programs change while a run lasts.
const CONFIGURATION: &str = "/etc";

/// The last file by name wins where two set the same policy.
const CHROMIUM_FILE: &str = "zz-authsome.json";
const FIREFOX_FILE: &str = "policies.json";

/// Shows each browser of this machine policies that name the authority, beside those there are. `work` is a directory of the sandbox's own,
/// `certificate` its DER, which is also in `file`.
pub fn cover(work: &Path, certificate: &[u8], file: &Path) -> Result<Vec<LeftAlone>, Error> {
    let mut left_alone = Vec::new();
    for (kind, directory, _) in BROWSERS.iter().filter(|(_, _, program)| Path::new(program).exists()) {
        let directory = Path::new(directory);
        let leave = |reason| LeftAlone { path: directory.to_owned(), reason };
        let (name, policies) = match kind {
            Kind::Chromium => (CHROMIUM_FILE, Ok(chromium(directory, certificate))),
            Kind::Firefox => (FIREFOX_FILE, trust_store::firefox_policies(&directory.join(FIREFOX_FILE), file)),
        };
        let target = directory.ancestors().find(|path| path.exists()).filter(|path| *path != Path::new(CONFIGURATION));
        match (policies, target) {
            (Ok(policies), Some(target)) => {
                let below = directory.strip_prefix(target).unwrap_or(Path::new(""));
                let add = |layer: &Path| add(layer, below, name, &policies);
                // The browser itself may be in a directory above.
                let files = target == directory || target.starts_with(CONFIGURATION);
                let covered = if files { cover::links(target, work, &add) } else { cover::overlay(target, work, &add) };
                left_alone.extend(covered.err().map(|error| leave(error.into())));
            }
            (Err(reason), _) => left_alone.push(leave(reason.into())),
            (Ok(_), None) => left_alone.push(leave("there is no such directory".into())),
        }
    }
    Ok(left_alone)
}

/// Makes the file of that name in `layer`, at `below`.
fn add(layer: &Path, below: &Path, name: &str, text: &str) -> Result<(), Error> {
    let mut directory = layer.to_owned();
    for component in below {
        directory.push(component);
        fs::create_dir(&directory).map_err(|source| Error::Create { path: directory.clone(), source })?;
        set_enterable(&directory)?;
    }
    write(&directory.join(name), text.as_bytes())
}

/// One list with the certificates of every file in that directory: lists of several files are not joined by the browser.
fn chromium(directory: &Path, certificate: &[u8]) -> String {
    let files: BTreeSet<_> = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let policies = files.iter().filter_map(|path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok());
    let mut certificates: Vec<Value> =
        policies.filter_map(|policies| policies.get("CACertificates")?.as_array().cloned()).flatten().collect();
    certificates.push(json!(BASE64_STANDARD.encode(certificate)));
    json!({"CACertificates": certificates}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_others_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.json", r#"{"CACertificates": ["QQ=="]}"#),
            ("b.json", r#"{"CACertificates": ["Qg=="], "Other": 1}"#),
            ("c.json", r#"{"CACertificates": 1}"#),
            ("d.json", "no JSON"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        assert_eq!(chromium(directory.path(), b"C"), r#"{"CACertificates":["QQ==","Qg==","Qw=="]}"#);
        assert_eq!(chromium(&directory.path().join("none"), b"C"), r#"{"CACertificates":["Qw=="]}"#);
    }
}
