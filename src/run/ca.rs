//! The persistent certificate authority of the environment mode: made on first use, stored beside the vault.

use std::path::{Path, PathBuf};

pub use crate::proxy::tls::Authority;
use crate::vault::{VaultError, file};

/// Where the authority is, below `AUTHSOME_HOME`.
const DIRECTORY: &str = "ca";
const CERTIFICATE: &str = "authsome-ca-cert.pem";
const KEY: &str = "authsome-ca-key.pem";
const LOCK: &str = ".lock";

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(transparent)]
    File(#[from] VaultError),
    #[error("{} is missing, but its certificate is there", path.display())]
    NoKey { path: PathBuf },
    #[error("{} holds no private key: {source}", path.display())]
    Key { path: PathBuf, source: rcgen::Error },
    #[error("{} is not a certificate of the key beside it", path.display())]
    Foreign { path: PathBuf },
    #[error("make the certificate authority: {0}")]
    Make(#[source] rcgen::Error),
}

/// The certificate's path, whether or not it exists.
pub fn certificate_path(home: &Path) -> PathBuf {
    home.join(DIRECTORY).join(CERTIFICATE)
}

/// The stored authority, or a new one. The key is written first: a certificate that got lost is made again of it, under the same name.
pub fn open(home: &Path) -> Result<Authority, CaError> {
    let directory = home.join(DIRECTORY);
    file::create_dir(&directory)?;
    let _lock = file::lock(&directory.join(LOCK))?;
    file::sweep(&directory)?;
    let (key_path, certificate_path) = (directory.join(KEY), directory.join(CERTIFICATE));
    let (key, certificate) = (file::read(&key_path)?, file::read(&certificate_path)?);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let foreign = || CaError::Foreign { path: certificate_path.clone() };
    let invalid = |source| CaError::Key { path: key_path.clone(), source };
    let key = match (key, &certificate) {
        (Some(key), _) => zeroize::Zeroizing::new(text(&key)),
        (None, Some(_)) => return Err(CaError::NoKey { path: key_path }),
        (None, None) => {
            let key = Authority::new_key().map_err(CaError::Make)?;
            file::create(&key_path, key.as_bytes())?;
            key
        }
    };
    if let Some(certificate) = certificate {
        return Authority::stored(&key, &text(&certificate)).map_err(invalid)?.ok_or_else(foreign);
    }
    let authority = Authority::persistent(&key).map_err(invalid)?;
    file::create(&certificate_path, authority.certificate_pem().as_bytes())?;
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn made_once_and_private() {
        let home = tempfile::tempdir().unwrap();
        let first = open(home.path()).unwrap();
        let again = open(home.path()).unwrap();
        assert_eq!(first.certificate_pem(), again.certificate_pem());
        assert!(first.common_name().starts_with("authsome CA "));
        let mode = |name: &str| fs::metadata(home.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca"), mode("ca/authsome-ca-key.pem")), (0o700, 0o600));
    }

    #[test]
    fn a_lost_certificate_is_made_again_of_the_key() {
        let home = tempfile::tempdir().unwrap();
        let first = open(home.path()).unwrap();
        fs::remove_file(certificate_path(home.path())).unwrap();
        assert_eq!(open(home.path()).unwrap().common_name(), first.common_name());
    }

    #[test]
    fn what_is_damaged_is_never_replaced() {
        let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        open(home.path()).unwrap();
        open(other.path()).unwrap();
        let key = home.path().join("ca/authsome-ca-key.pem");
        fs::copy(certificate_path(other.path()), certificate_path(home.path())).unwrap();
        assert!(matches!(open(home.path()), Err(CaError::Foreign { .. })));
        fs::write(&key, "no key").unwrap();
        assert!(matches!(open(home.path()), Err(CaError::Key { .. })));
        fs::remove_file(&key).unwrap();
        assert!(matches!(open(home.path()), Err(CaError::NoKey { .. })));
    }
}
