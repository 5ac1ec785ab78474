//! Stored credentials: one sealed file per connection, opened by a key that is never in the child's reach.
//!
//! ```text
//! AUTHSOME_HOME/vault/                      0700
//!   identity.txt                            0600  the age identity (or identity.age, the same under a passphrase)
//!   .lock                                   0600  held by whoever changes anything
//!   <provider>/<connection>.age             0600  age-encryption.org/v1, JSON inside
//!   <provider>/.default                     0600  the name of the default connection, when it is not `default`
//! ```

pub(crate) mod file;
pub(crate) mod key;
pub mod prompt;
mod record;
pub(crate) mod seal;
mod store;

pub use key::KeySource;
pub use record::{ConnectionName, InvalidName, Kind, Record};
pub use store::Vault;

use crate::provider::ProviderName;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Makes AUTHSOME_HOME, which only its owner may enter.
pub fn create_home(home: &Path) -> Result<(), VaultError> {
    file::create_dir(home)
}

/// What failed, on which file.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    /// Another name for the file may be in reach of a program that this one is hidden from.
    #[error("{} has {links} hard links; a secret file must have one name only", path.display())]
    HardLinked { path: PathBuf, links: u64 },
    #[error("the vault key {} is missing, but {sealed} sealed credential(s) need it", path.display())]
    KeyMissing { path: PathBuf, sealed: usize },
    /// `origin`: the file or variable the key came from; its text is not repeated.
    #[error("{origin} does not hold an age secret key: {reason}")]
    KeyInvalid { origin: String, reason: &'static str },
    #[error("the vault key is kept in `{0}`, which this version cannot read")]
    KeyUnsupported(&'static str),
    #[error("the passphrase does not open {}", path.display())]
    Passphrase { path: PathBuf },
    #[error("no passphrase was given")]
    NoPassphrase,
    #[error("the two passphrases differ")]
    PassphrasesDiffer,
    #[error("the vault key {origin} does not open {}", path.display())]
    WrongKey { origin: String, path: PathBuf },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} holds the credential of {found}", path.display())]
    Misplaced { path: PathBuf, found: String },
    #[error("connection `{connection}` of {provider} exists already")]
    Exists { provider: ProviderName, connection: ConnectionName },
    #[error("{} names connection `{name}`, which does not exist", path.display())]
    DanglingDefault { path: PathBuf, provider: ProviderName, name: String },
    #[error("cannot seal {}: {reason}", path.display())]
    Seal { path: PathBuf, reason: String },
}

impl VaultError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
