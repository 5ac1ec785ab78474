//! What can be said of a connection without giving its secrets away.
use super::report::Failure;
use crate::{
    provider::{Provider, ProviderName},
    vault::{ConnectionName, Kind, Record, Vault, VaultError},
};
use serde_json::{Map, Value, json};

/// Stands where a secret was; as the original program writes it.
const REDACTED: &str = "***REDACTED***";

pub struct Status {
    pub connection: ConnectionName,
    pub is_default: bool,
    /// The record, or why it cannot be read.
    pub record: Result<Record, VaultError>,
}

/// Every connection of a provider. A record that cannot be read does not hide the others.
pub fn all(vault: &Vault, provider: &ProviderName) -> Result<Vec<Status>, Failure> {
    let default = vault.default_connection(provider)?;
    let mut found = Vec::new();
    for connection in vault.of(provider)? {
        let is_default = default.as_ref() == Some(&connection);
        match vault.load(provider, &connection).transpose() {
            // Removed by another process in the meantime.
            None => {}
            Some(record) => found.push(Status { connection, is_default, record }),
        }
    }
    Ok(found)
}

impl Status {
    pub fn state(&self) -> &'static str {
        match &self.record {
            Err(_) => "unreadable",
            Ok(record) if expires_at(record).is_some_and(|at| at <= jiff::Timestamp::now().as_second()) => "expired",
            Ok(_) => "connected",
        }
    }

    pub fn expires(&self) -> Option<String> {
        self.record.as_ref().ok().and_then(expires_at).map(timestamp)
    }

    /// One entry of `list --json`.
    pub fn summary(&self) -> Map<String, Value> {
        let scopes = match &self.record {
            Ok(Record { kind: Kind::OAuth { scopes, .. }, .. }) => scopes.as_slice(),
            _ => &[],
        };
        let entries = [
            ("connection_name", json!(self.connection.as_str())),
            ("is_default", json!(self.is_default)),
            ("auth_type", json!(self.record.as_ref().ok().map(|record| record.kind.auth_type()))),
            ("status", json!(self.state())),
            ("scopes", json!(scopes)),
            ("expires_at", json!(self.expires())),
        ];
        entries.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
    }

    /// [`summary`](Self::summary) and everything else the record holds, secrets redacted.
    pub fn details(&self, provider: Option<&Provider>) -> Map<String, Value> {
        let mut details = self.summary();
        let mut set = |name: &str, value: Value| details.insert(name.to_owned(), value);
        match &self.record {
            Err(error) => {
                set("problem", json!(error.to_string()));
            }
            Ok(record) => {
                set("base_url", json!(record.base_url));
                set("created_at", json!(timestamp(record.created_at)));
                match &record.kind {
                    Kind::ApiKey { fields } => {
                        for (name, value) in fields {
                            // Shown only where the definition says that it is no secret.
                            let open = provider.is_some_and(|p| p.fields.iter().any(|field| field.name == *name && !field.secret));
                            set(name, json!(if open { value.expose() } else { REDACTED }));
                        }
                    }
                    Kind::OAuth { refresh_token, .. } => {
                        set("access_token", json!(REDACTED));
                        set("refresh_token", json!(refresh_token.as_ref().map(|_| REDACTED)));
                    }
                }
            }
        }
        details
    }
}

fn expires_at(record: &Record) -> Option<i64> {
    match record.kind {
        Kind::OAuth { expires_at, .. } => expires_at,
        Kind::ApiKey { .. } => None,
    }
}

/// RFC 3339 in UTC; a number that is no time is shown as it is.
fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
