//! NSS databases, as Chromium and Firefox have one for each user or profile (certutil(1)).

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{Certificate, Entry, Error, Fingerprint, State, Step, step};

pub const CERTUTIL: &str = "certutil";

/// Its SQLite file of certificates: without it there is no database.
pub const CERTIFICATES: &str = "cert9.db";

fn database(directory: &Path) -> PathBuf {
    let mut name = OsString::from("sql:");
    name.push(directory);
    name.into()
}

pub fn state(directory: &Path, entry: &Entry) -> Result<State, Error> {
    if !directory.join(CERTIFICATES).exists() {
        return Ok(State::Absent);
    }
    let arguments = ["-L".into(), "-a".into(), "-d".into(), database(directory).into(), "-n".into(), entry.common_name.clone().into()];
    Ok(match step::ask(CERTUTIL, arguments)? {
        None => State::Absent,
        Some(pem) if Fingerprint::of_pem(&pem).as_ref() == Some(&entry.sha256) => State::Installed,
        Some(_) => State::Other,
    })
}

/// Whether there is the program that `install` takes.
pub fn can_install() -> bool {
    step::find(CERTUTIL).is_some()
}

/// As `install`, for a run's authority, where nobody can be asked for a database's password.
pub fn unattended(directory: &Path, certificate: &Path, common_name: &str) -> Vec<Step> {
    let password_file = ["-f".into(), "/dev/null".into()];
    add(directory, certificate, common_name).into_iter().map(|step| step.with(&password_file)).collect()
}

pub fn install(directory: &Path, certificate: &Certificate) -> Vec<Step> {
    add(directory, &certificate.path, &certificate.common_name)
}

/// `C`: trusted to issue servers' certificates, and for nothing else.
fn add(directory: &Path, certificate: &Path, common_name: &str) -> Vec<Step> {
    let new = || {
        let directory = directory.to_owned();
        [Step::Directory { path: directory.clone() }, Step::run(&[CERTUTIL, "-N", "--empty-password", "-d"]).with([&database(&directory)])]
    };
    let missing = !directory.join(CERTIFICATES).exists();
    let add = Step::run(&[CERTUTIL, "-A", "-a", "-t", "C,,", "-d"]).with([
        &database(directory),
        &"-n".into(),
        &common_name.into(),
        &"-i".into(),
        &certificate.to_owned(),
    ]);
    missing.then(new).into_iter().flatten().chain([add]).collect()
}

pub fn uninstall(directory: &Path, common_name: &str) -> Vec<Step> {
    vec![Step::run(&[CERTUTIL, "-D", "-d"]).with([&database(directory), &"-n".into(), &common_name.into()])]
}
