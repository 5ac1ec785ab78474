//! Trust in force: the files of a run over the system's own.

use std::{fs, panic, path::PathBuf, thread};

use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{
    super::{identity::Identity, mask::mount},
    Database, Error, KeyStoreError, LeftAlone, Trust, browsers, cover, java, nss, system, write,
};
use crate::certificate::jks;

impl Trust<'_> {
    /// Shows the files in place of the system's own, in the calling process's mount namespace: bundles, Java's key stores, the directories
    /// of hashed names, and browsers' policies. `directory` of [`write`](Self::write) must be a file system of the sandbox's own.
    pub fn mount(&mut self) -> Result<Vec<LeftAlone>, Error> {
        let certificate = CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).map_err(Error::Authority)?;
        let java_home = self.java_home.take();
        let (mut left_alone, stores) = thread::scope(|scope| {
            // Java's stores are long, and end in a digest of all of it.
            let extending = || java::stores(java_home.as_deref()).into_iter().map(|path| extended(path, &certificate)).collect::<Vec<_>>();
            let extending = thread::Builder::new().spawn_scoped(scope, extending).map_err(Error::Thread)?;
            self.mount_bundles()?;
            let left_alone = browsers::cover(&self.directory, &certificate, &self.authority_file)?;
            Ok::<_, Error>((left_alone, extending.join().unwrap_or_else(|panic| panic::resume_unwind(panic))))
        })?;
        left_alone.extend(self.mount_java(stores)?);
        Ok(left_alone)
    }

    fn mount_bundles(&mut self) -> Result<(), Error> {
        // First: the bundles may be in them.
        for directory in system::hashed_directories() {
            cover::cover_hashed(&directory, &self.directory, &self.authority_file, self.authority.common_name)?;
        }
        for bundle in &self.bundles {
            mount::bind_read_only(&bundle.combined, &bundle.real_path)?;
            // The same file by a name that a sandbox made inside this one shows as well.
            for (_, value) in self.variables.iter_mut().filter(|(_, value)| *value == bundle.combined) {
                *value = bundle.real_path.clone().into();
            }
        }
        Ok(())
    }

    /// Covers the user's NSS database, in the calling process's mount namespace.
    pub fn mount_database(&self, identity: &Identity) -> Result<Option<Database>, LeftAlone> {
        nss::cover(identity, &self.authority_file, self.authority.common_name)
    }

    fn mount_java(&self, stores: Vec<(PathBuf, Result<Vec<u8>, KeyStoreError>)>) -> Result<Vec<LeftAlone>, Error> {
        let mut left_alone = Vec::new();
        for (index, (path, extended)) in stores.into_iter().enumerate() {
            match extended {
                Ok(bytes) => {
                    let combined = self.directory.join(format!("java-{index}"));
                    write(&combined, &bytes)?;
                    mount::bind_read_only(&combined, &path)?;
                }
                Err(reason) => left_alone.push(LeftAlone { path, reason: reason.into() }),
            }
        }
        Ok(left_alone)
    }
}

/// A key store as it is to be seen inside.
fn extended(path: PathBuf, certificate: &[u8]) -> (PathBuf, Result<Vec<u8>, KeyStoreError>) {
    let extended = fs::read(&path).map_err(KeyStoreError::Read).and_then(|store| jks::extend(store, certificate));
    (path, extended)
}
