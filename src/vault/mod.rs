//! Stored credentials: one sealed file per connection, opened by a key that is never in the child's reach.
use crate::{provider::ProviderName, secret::Secret};
use std::{collections::BTreeMap, path::Path};

/// `default`, `work`: same alphabet as provider names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionName(pub(crate) String);

/// What a connection's file holds.
pub struct Record {
    pub provider: ProviderName,
    pub connection: ConnectionName,
    pub base_url: Option<String>,
    /// Seconds since the epoch.
    pub created_at: i64,
    pub kind: Kind,
}

pub enum Kind {
    ApiKey { fields: BTreeMap<String, Secret<String>> },
    OAuth { access_token: Secret<String>, refresh_token: Option<Secret<String>>, expires_at: Option<i64>, scopes: Vec<String> },
}

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("placeholder")]
    Placeholder,
}

/// `AUTHSOME_HOME/vault`. Opening it reads no secret; the key is read when the first record is.
pub struct Vault {}

impl Vault {
    pub fn open(_home: &Path, _env: &dyn Fn(&str) -> Option<String>) -> Result<Self, VaultError> {
        todo!()
    }
    /// Every connection, by directory listing; nothing is decrypted.
    pub fn connections(&self) -> Result<Vec<(ProviderName, ConnectionName)>, VaultError> {
        todo!()
    }
    pub fn default_connection(&self, _provider: &ProviderName) -> Result<Option<ConnectionName>, VaultError> {
        todo!()
    }
    pub fn load(&self, _provider: &ProviderName, _connection: &ConnectionName) -> Result<Option<Record>, VaultError> {
        todo!()
    }
    pub fn store(&self, _record: &Record, _replace: bool) -> Result<(), VaultError> {
        todo!()
    }
    pub fn remove(&self, _provider: &ProviderName, _connection: &ConnectionName) -> Result<bool, VaultError> {
        todo!()
    }
}
