//! Which certificate authorities are trusted: the user's own, and what `--upstream-ca` adds.

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};
use rustls_native_certs::CertificateResult;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why there is nothing to verify a server with; each names its file.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: no PEM certificate in it", path.display())]
    Empty { path: PathBuf },
    #[error("{}: not a PEM file of CA certificates: {problem}", path.display())]
    NotCertificate { path: PathBuf, problem: String },
    #[error("no trusted certificate authority on this machine: {0}")]
    NoneTrusted(String),
    #[error("TLS client: {0}")]
    Client(#[source] rustls::Error),
}

impl RootsError {
    pub fn hint(&self) -> String {
        match self {
            Self::NoneTrusted(_) => "install the package ca-certificates, or set SSL_CERT_FILE or --upstream-ca FILE".to_owned(),
            Self::Client(_) => String::new(),
            Self::Unreadable { .. } | Self::Empty { .. } | Self::NotCertificate { .. } => {
                "--upstream-ca takes a file of PEM certificates (`-----BEGIN CERTIFICATE-----`)".to_owned()
            }
        }
    }
}

/// The user's roots (SSL_CERT_FILE and SSL_CERT_DIR if set, else the system's) and those of `extra`. Takes milliseconds and reads files.
pub fn load(extra: &[PathBuf]) -> Result<RootCertStore, RootsError> {
    let mut store = RootCertStore::empty();
    for path in extra {
        add_file(&mut store, path)?;
    }
    add_native(&mut store, rustls_native_certs::load_native_certs())?;
    Ok(store)
}

/// Whether every extra file can be used, before anything depends on it.
pub fn check(extra: &[PathBuf]) -> Result<(), RootsError> {
    extra.iter().try_for_each(|path| add_file(&mut RootCertStore::empty(), path))
}

/// One bad file among the system's does not take the others' trust away; having none at all is an error.
fn add_native(store: &mut RootCertStore, native: CertificateResult) -> Result<(), RootsError> {
    store.add_parsable_certificates(native.certs);
    for error in &native.errors {
        tracing::warn!(%error, "trusted certificates");
    }
    if store.is_empty() {
        let problem = native.errors.first().map_or("none found".to_owned(), ToString::to_string);
        return Err(RootsError::NoneTrusted(problem));
    }
    Ok(())
}

/// Every certificate of one PEM file; a file that was asked for is all good or an error.
fn add_file(store: &mut RootCertStore, path: &Path) -> Result<(), RootsError> {
    let path = path.to_owned();
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(RootsError::Unreadable { path, source }),
    };
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added =
            certificate.map_err(|error: pem::Error| error.to_string()).and_then(|der| store.add(der).map_err(|error| error.to_string()));
        if let Err(problem) = added {
            return Err(RootsError::NotCertificate { path, problem });
        }
        count += 1;
    }
    if count == 0 { Err(RootsError::Empty { path }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(bytes: &[u8]) -> Result<usize, RootsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut store = RootCertStore::empty();
        add_file(&mut store, file.path()).map(|()| store.len())
    }

    #[test]
    fn a_file_is_all_certificates_or_an_error() {
        let ca = rcgen::generate_simple_self_signed(["ca.acme.test".to_owned()]).unwrap();
        let (pem, key) = (ca.cert.pem(), ca.signing_key.serialize_pem());
        assert_eq!(add(pem.as_bytes()).unwrap(), 1);
        assert_eq!(add(format!("# two\n{pem}{pem}{key}").as_bytes()).unwrap(), 2);
        assert!(matches!(add(b""), Err(RootsError::Empty { .. })));
        assert!(matches!(add(key.as_bytes()), Err(RootsError::Empty { .. })));
        assert!(matches!(add(ca.cert.der()), Err(RootsError::Empty { .. } | RootsError::NotCertificate { .. })));
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(add(format!("{pem}{garbage}").as_bytes()), Err(RootsError::NotCertificate { .. })));
        assert!(matches!(add(&pem.as_bytes()[..pem.len() / 2]), Err(RootsError::Empty { .. } | RootsError::NotCertificate { .. })));
    }

    #[test]
    fn errors_name_the_file() {
        let path = PathBuf::from("/nonexistent/ca.pem");
        let error = add_file(&mut RootCertStore::empty(), &path).unwrap_err();
        assert_eq!(error.to_string(), "read /nonexistent/ca.pem: No such file or directory (os error 2)");
    }

    #[test]
    fn having_no_roots_is_an_error() {
        let native = rustls_native_certs::load_certs_from_paths(Some(Path::new("/nonexistent/roots.pem")), None);
        let error = add_native(&mut RootCertStore::empty(), native).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/roots.pem"), "{error}");
        let error = add_native(&mut RootCertStore::empty(), CertificateResult::default()).unwrap_err();
        assert_eq!(error.to_string(), "no trusted certificate authority on this machine: none found");
    }
}
