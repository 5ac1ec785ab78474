//! Stores of roots on this machine that outlive a run: the persistent authority is put into them and taken out again.
//!
//! A [`Store`] is data: where a certificate goes and which program puts it into force. What is done is planned as [`Step`]s first, so that it
//! can be shown before it is done; what was done is in the [`Journal`], so that exactly that is undone.

mod files;
mod firefox;
mod journal;
mod machine;
mod nss;
mod step;

pub use firefox::with as firefox_policies;
pub use journal::{Entry, Journal};
pub use machine::{Machine, System};
pub use nss::{can_install as can_write_nss, unattended as nss_steps};
pub use step::Step;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Serialize;

use crate::{certificate::fingerprint, vault::VaultError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} holds another certificate", path.display())]
    Other { path: PathBuf },
    #[error("{} is not JSON of the expected shape: {reason}", path.display())]
    Shape { path: PathBuf, reason: String },
    #[error("cannot run {program}: {source}")]
    Start { program: String, source: io::Error },
    /// `said`: the end of its standard error.
    #[error("{program} failed ({status}): {said}")]
    Program { program: String, status: std::process::ExitStatus, said: String },
    #[error(transparent)]
    Journal(#[from] VaultError),
    #[error("{failed}; undoing it also failed: {undo}")]
    Both { failed: Box<Error>, undo: Box<Error> },
}

impl Error {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}

/// Whose programs a store is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everybody's: only root can change it.
    System,
    User,
}

/// What is installed.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The file it is in, for programs that read it themselves.
    pub path: PathBuf,
    /// One block (RFC 7468), ending with a newline.
    pub pem: String,
    pub common_name: String,
    pub sha256: Fingerprint,
}

/// SHA-256 of a certificate's DER, written as in every browser: octets in upper case with colons between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub fn of(der: &[u8]) -> Self {
        Self(fingerprint::sha256(der))
    }

    /// Of the first certificate in a text.
    fn of_pem(pem: &[u8]) -> Option<Self> {
        CertificateDer::from_pem_slice(pem).ok().map(|der| Self::of(&der))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One place on this machine that programs take their roots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// For the journal and for people.
    pub name: &'static str,
    pub scope: Scope,
    /// The file the certificate is in or is named in, or the directory of the database.
    pub path: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file of its own, put into force by a program that reads the directory.
    Anchor { refresh: &'static [&'static str] },
    /// A file of policies for Firefox that names the certificate's.
    FirefoxPolicy,
    /// An NSS database, changed by certutil(1).
    Nss,
    /// A keychain of macOS, changed by security(1).
    Keychain { arguments: &'static [&'static str] },
}

/// What is found where a certificate would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Installed,
    Absent,
    /// Something that is not ours: it is never touched.
    Other,
    /// Nothing can be found out or done without this program.
    ToolMissing(&'static str),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => f.write_str("installed"),
            Self::Absent => f.write_str("not installed"),
            Self::Other => f.write_str("other certificate"),
            Self::ToolMissing(tool) => write!(f, "{tool} is missing"),
        }
    }
}

impl Store {
    /// The program this store needs.
    fn tool(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Anchor { refresh } => refresh.first().copied(),
            Kind::FirefoxPolicy => None,
            Kind::Nss => Some(nss::CERTUTIL),
            Kind::Keychain { .. } => Some("security"),
        }
    }

    /// Whether the certificate with this name, file and fingerprint is in it.
    pub fn state(&self, entry: &Entry) -> Result<State, Error> {
        if let Some(tool) = self.tool().filter(|tool| step::find(tool).is_none()) {
            return Ok(State::ToolMissing(tool));
        }
        match self.kind {
            Kind::Anchor { .. } => files::state(&self.path, &entry.sha256),
            Kind::FirefoxPolicy => firefox::state(&self.path, &entry.certificate),
            Kind::Nss => nss::state(&self.path, entry),
            Kind::Keychain { .. } => self.keychain_state(entry),
        }
    }

    /// `security find-certificate -Z` prints `SHA-256 hash: ` and the octets without colons.
    fn keychain_state(&self, entry: &Entry) -> Result<State, Error> {
        let path = self.path.as_os_str();
        let arguments = ["find-certificate", "-a", "-Z", "-c", &entry.common_name].map(Into::into).into_iter().chain([path.into()]);
        let said = step::ask("security", arguments)?.unwrap_or_default();
        let installed = String::from_utf8_lossy(&said).contains(&entry.sha256.0.replace(':', ""));
        Ok(if installed { State::Installed } else { State::Absent })
    }

    /// What puts the certificate into a store that does not have it.
    pub fn install(&self, certificate: &Certificate) -> Result<Vec<Step>, Error> {
        Ok(match self.kind {
            Kind::Anchor { refresh } => {
                vec![Step::Write { path: self.path.clone(), text: certificate.pem.clone() }, Step::run(refresh)]
            }
            Kind::FirefoxPolicy => vec![firefox::install(&self.path, &certificate.path)?],
            Kind::Nss => nss::install(&self.path, certificate),
            Kind::Keychain { arguments } => {
                let add = ["security", "add-trusted-cert"].iter().chain(arguments).chain(&["-r", "trustRoot", "-k"]);
                vec![Step::run(add).with([&self.path, &certificate.path])]
            }
        })
    }

    /// What takes the certificate out of a store that has it.
    pub fn uninstall(&self, entry: &Entry) -> Result<Vec<Step>, Error> {
        Ok(match self.kind {
            Kind::Anchor { refresh } => vec![Step::Remove { path: self.path.clone() }, Step::run(refresh)],
            Kind::FirefoxPolicy => vec![firefox::uninstall(&self.path, &entry.certificate)?],
            Kind::Nss => nss::uninstall(&self.path, &entry.common_name),
            Kind::Keychain { .. } => {
                let hash = entry.sha256.0.replace(':', "");
                vec![Step::run(["security", "delete-certificate", "-t", "-Z"].iter()).with([&PathBuf::from(hash), &self.path])]
            }
        })
    }
}

/// Carries the steps out in order. One that fails undoes the files written before it: no store is left half changed.
pub fn carry_out(steps: &[Step]) -> Result<(), Error> {
    for (done, step) in steps.iter().enumerate() {
        let Err(failed) = step.carry_out() else { continue };
        let written = steps[..done].iter().rev().filter_map(|step| match step {
            Step::Write { path, .. } => Some(Step::Remove { path: path.clone() }),
            _ => None,
        });
        return match written.map(|undo| undo.carry_out()).find_map(Result::err) {
            Some(undo) => Err(Error::Both { failed: Box::new(failed), undo: Box::new(undo) }),
            None => Err(failed),
        };
    }
    Ok(())
}
