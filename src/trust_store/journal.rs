//! What was installed: written before it is done, so that nothing is left behind unknown.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Certificate, Error, Fingerprint, Scope, Store};
use crate::vault::file;

/// Below AUTHSOME_HOME, beside the authority.
const DIRECTORY: &str = "ca";
const JOURNAL: &str = "installed.json";
const LOCK: &str = ".installed.lock";

/// One certificate in one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub store: String,
    pub scope: Scope,
    pub path: PathBuf,
    /// The file it was taken from.
    pub certificate: PathBuf,
    pub common_name: String,
    pub sha256: Fingerprint,
}

impl Entry {
    pub fn new(store: &Store, certificate: &Certificate) -> Self {
        Self {
            store: store.name.to_owned(),
            scope: store.scope,
            path: store.path.clone(),
            certificate: certificate.path.clone(),
            common_name: certificate.common_name.clone(),
            sha256: certificate.sha256.clone(),
        }
    }

    pub fn is_of(&self, store: &Store) -> bool {
        self.store == store.name && self.scope == store.scope && self.path == store.path
    }
}

/// AUTHSOME_HOME/ca/installed.json, and a lock on it for as long as this lives.
pub struct Journal {
    path: PathBuf,
    entries: Vec<Entry>,
    _lock: File,
}

impl Journal {
    pub fn open(home: &Path) -> Result<Self, Error> {
        let directory = home.join(DIRECTORY);
        file::create_dir(&directory)?;
        let lock = file::lock(&directory.join(LOCK))?;
        let path = directory.join(JOURNAL);
        let entries = match file::read(&path)? {
            None => Vec::new(),
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| Error::Shape { path: path.clone(), reason: error.to_string() })?
            }
        };
        Ok(Self { path, entries, _lock: lock })
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn add(&mut self, entry: Entry) -> Result<(), Error> {
        self.entries.push(entry);
        self.write()
    }

    pub fn remove(&mut self, entry: &Entry) -> Result<(), Error> {
        self.entries.retain(|other| other != entry);
        self.write()
    }

    fn write(&self) -> Result<(), Error> {
        if self.entries.is_empty() {
            file::remove(&self.path)?;
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&self.entries)
            .map_err(|error| Error::Shape { path: self.path.clone(), reason: error.to_string() })?;
        Ok(file::replace(&self.path, &text)?)
    }
}
