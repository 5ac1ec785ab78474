//! Browsers have roots of their own; more of them can be named in files of policies, which are for the administrator of a machine.
//!
//! Chromium and its kin read every file of a directory (policy `CACertificates`, from version 131 on), Firefox reads one
//! (`Certificates.Install`). No database has to be written for that, and the user's own ones are left alone.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Error, LeftAlone, mount, set_enterable};
use crate::trust_store;

/// What a browser reads its policies from, below the directory of its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chromium,
    Firefox,
}

/// Configuration, kind, and where the program is if its configuration may be missing.
const BROWSERS: &[(&str, Kind, &str)] = &[
    ("/etc/chromium", Kind::Chromium, "/usr/lib/chromium"),
    ("/etc/chromium-browser", Kind::Chromium, "/usr/lib/chromium-browser"),
    ("/etc/opt/chrome", Kind::Chromium, "/opt/google/chrome"),
    ("/etc/opt/edge", Kind::Chromium, "/opt/microsoft/msedge"),
    ("/etc/brave", Kind::Chromium, "/opt/brave.com"),
    ("/etc/firefox", Kind::Firefox, "/usr/lib/firefox"),
    ("/etc/firefox-esr", Kind::Firefox, "/usr/lib/firefox-esr"),
];

/// Nothing that other programs change while a run lasts may be covered.
const TOO_WIDE: &str = "/etc";

const CHROMIUM_POLICIES: &str = "policies/managed";
/// The last file by name wins where two set the same policy.
const CHROMIUM_FILE: &str = "zz-authsome.json";
const FIREFOX_POLICIES: &str = "policies";
const FIREFOX_FILE: &str = "policies.json";

/// Shows each browser of this machine policies that name the authority, beside those there are. `work` is a directory of the sandbox's own,
/// `certificate` its DER, which is also in `file`.
pub fn cover(work: &Path, certificate: &[u8], file: &Path) -> Result<Vec<LeftAlone>, Error> {
    let mut left_alone = Vec::new();
    let installed =
        |(configuration, _, program): &&(&str, Kind, &str)| [*configuration, program].iter().any(|path| Path::new(path).exists());
    for (configuration, kind, _) in BROWSERS.iter().filter(installed) {
        let configuration = Path::new(configuration);
        let leave = |reason| LeftAlone { path: configuration.to_owned(), reason };
        let policies = match kind {
            Kind::Chromium => chromium(&configuration.join(CHROMIUM_POLICIES), certificate),
            Kind::Firefox => match trust_store::firefox_policies(&configuration.join(FIREFOX_POLICIES).join(FIREFOX_FILE), file) {
                Ok(policies) => policies,
                Err(reason) => {
                    left_alone.push(leave(reason.into()));
                    continue;
                }
            },
        };
        let Some(target) = configuration.ancestors().find(|path| path.exists()).filter(|path| *path != Path::new(TOO_WIDE)) else {
            left_alone.push(leave("there is no such directory".into()));
            continue;
        };
        let (directory, name) = match kind {
            Kind::Chromium => (CHROMIUM_POLICIES, CHROMIUM_FILE),
            Kind::Firefox => (FIREFOX_POLICIES, FIREFOX_FILE),
        };
        let below = configuration.strip_prefix(target).unwrap_or(Path::new("")).join(directory);
        let layer = layer(work, &below, name, &policies)?;
        if let Err(error) = mount::overlay(&layer, target) {
            left_alone.push(leave(error.into()));
        }
    }
    Ok(left_alone)
}

/// A directory that has, at `below`, the file of that name.
fn layer(work: &Path, below: &Path, name: &str, text: &str) -> Result<PathBuf, Error> {
    let failed = |path: &Path, source| Error::Create { path: path.to_owned(), source };
    let layer = tempfile::Builder::new().prefix("policies-").tempdir_in(work).map_err(|source| failed(work, source))?.keep();
    set_enterable(&layer)?;
    let mut directory = layer.clone();
    for component in below {
        directory.push(component);
        fs::create_dir(&directory).map_err(|source| failed(&directory, source))?;
        set_enterable(&directory)?;
    }
    mount::write(&directory.join(name), text.as_bytes())?;
    Ok(layer)
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
