//! What a connection's file holds, and its form as JSON inside the seal.
use super::VaultError;
use crate::{provider::ProviderName, secret::Secret};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};
use zeroize::Zeroizing;

/// `default`, `work`: same alphabet as provider names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a connection name")]
pub struct InvalidName(pub String);

/// What a connection's file holds.
pub struct Record {
    pub provider: ProviderName,
    pub connection: ConnectionName,
    pub base_url: Option<String>,
    /// Seconds since the epoch.
    pub created_at: i64,
    pub kind: Kind,
}

#[derive(Deserialize)]
pub enum Kind {
    /// By field name of the provider (`api_key`, `sid`).
    #[serde(rename = "api_key")]
    ApiKey { fields: BTreeMap<String, Secret<String>> },
    /// `expires_at`: seconds since the epoch.
    #[serde(rename = "oauth2")]
    OAuth { access_token: Secret<String>, refresh_token: Option<Secret<String>>, expires_at: Option<i64>, scopes: Vec<String> },
}

/// The longest name, in octets: a file name with its suffix and a label both fit.
const MAX_NAME: usize = 64;

impl ConnectionName {
    /// The one `login` stores under when none is named.
    pub const DEFAULT: &str = "default";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ConnectionName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl FromStr for ConnectionName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let valid = text.len() <= MAX_NAME
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.to_owned())) }
    }
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The JSON inside the seal, as read: its secrets go straight into [`Secret`].
#[derive(Deserialize)]
struct Stored {
    provider: String,
    connection: String,
    base_url: Option<String>,
    created_at: i64,
    credential: Kind,
}

/// The same as written: a [`Secret`] has no `Serialize`, so its text is lent here and nowhere else.
#[derive(Serialize)]
struct Storing<'a> {
    provider: &'a str,
    connection: &'a str,
    base_url: Option<&'a str>,
    created_at: i64,
    credential: StoringKind<'a>,
}

#[derive(Serialize)]
enum StoringKind<'a> {
    #[serde(rename = "api_key")]
    ApiKey { fields: BTreeMap<&'a str, &'a str> },
    #[serde(rename = "oauth2")]
    OAuth { access_token: &'a str, refresh_token: Option<&'a str>, expires_at: Option<i64>, scopes: &'a [String] },
}

impl Kind {
    /// `api_key` or `oauth2`, as provider files write it.
    pub fn auth_type(&self) -> &'static str {
        match self {
            Self::ApiKey { .. } => "api_key",
            Self::OAuth { .. } => "oauth2",
        }
    }
}

impl Record {
    /// Keys that were typed in or found, as of now.
    pub fn of_keys(
        provider: ProviderName,
        connection: ConnectionName,
        base_url: Option<String>,
        fields: BTreeMap<String, Secret<String>>,
    ) -> Self {
        Self { provider, connection, base_url, created_at: jiff::Timestamp::now().as_second(), kind: Kind::ApiKey { fields } }
    }

    /// As JSON, in a buffer that is wiped.
    pub(super) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let credential = match &self.kind {
            Kind::ApiKey { fields } => {
                StoringKind::ApiKey { fields: fields.iter().map(|(name, value)| (name.as_str(), value.expose().as_str())).collect() }
            }
            Kind::OAuth { access_token, refresh_token, expires_at, scopes } => StoringKind::OAuth {
                access_token: access_token.expose(),
                refresh_token: refresh_token.as_ref().map(|token| token.expose().as_str()),
                expires_at: *expires_at,
                scopes,
            },
        };
        let storing = Storing {
            provider: self.provider.as_str(),
            connection: self.connection.as_str(),
            base_url: self.base_url.as_deref(),
            created_at: self.created_at,
            credential,
        };
        // Measured first, so that the buffer with the secrets is never moved and no copy of it stays behind.
        let mut length = Length(0);
        serde_json::to_writer(&mut length, &storing)?;
        let mut json = Zeroizing::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *json, &storing)?;
        Ok(json)
    }

    /// Reads the opened content of `path`, which must be the connection that its place says.
    pub(crate) fn from_json(json: &[u8], provider: &ProviderName, connection: &ConnectionName, path: &Path) -> Result<Self, VaultError> {
        // serde_json's own message may quote a value, so only the place is kept of it.
        let stored: Stored = serde_json::from_slice(json).map_err(|error| VaultError::Damaged {
            path: path.to_owned(),
            reason: format!("its content is not a credential (column {})", error.column()),
        })?;
        if stored.provider != provider.as_str() || stored.connection != connection.as_str() {
            let found = format!("{}/{}", stored.provider, stored.connection);
            return Err(VaultError::Misplaced { path: path.to_owned(), found });
        }
        let (provider, connection) = (provider.clone(), connection.clone());
        Ok(Self { provider, connection, base_url: stored.base_url, created_at: stored.created_at, kind: stored.credential })
    }
}

/// A writer that only counts.
struct Length(usize);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &[u8], provider: &str, connection: &str) -> Result<Record, String> {
        let path = Path::new("/vault/acme/default.age");
        Record::from_json(json, &provider.parse().unwrap(), &connection.parse().unwrap(), path).map_err(|e| e.to_string())
    }

    #[test]
    fn names_are_file_names_and_nothing_more() {
        for text in ["default", "work", "a", "0", "a.b_c-d", &"a".repeat(64)] {
            assert_eq!(text.parse::<ConnectionName>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", ".hidden", "-x", "_x", "Work", "a/b", "../a", "a b", "a\0", "é", &"a".repeat(65)] {
            assert!(text.parse::<ConnectionName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn both_kinds_survive_the_round_trip() {
        let fields = [("api_key", "k\"e\\y"), ("sid", "AC1")].map(|(n, v)| (n.to_owned(), Secret::new(v.to_owned()))).into();
        let oauth = Kind::OAuth {
            access_token: Secret::new("at".to_owned()),
            refresh_token: Some(Secret::new("rt".to_owned())),
            expires_at: Some(1_700_000_000),
            scopes: vec!["repo".to_owned()],
        };
        for kind in [Kind::ApiKey { fields }, oauth] {
            let base_url = Some("https://acme.test".to_owned());
            let record = Record { provider: "acme".parse().unwrap(), connection: "work".parse().unwrap(), base_url, created_at: 7, kind };
            let json = record.to_json().unwrap();
            let again = read(&json, "acme", "work").unwrap();
            assert_eq!(again.to_json().unwrap(), json);
        }
    }

    #[test]
    fn a_file_in_a_place_of_another_is_refused() {
        let json = br#"{"provider":"acme","connection":"default","created_at":0,"credential":{"api_key":{"fields":{}}}}"#;
        assert!(read(json, "acme", "default").is_ok());
        assert_eq!(read(json, "other", "default").err().unwrap(), "/vault/acme/default.age holds the credential of acme/default");
    }

    #[test]
    fn an_error_does_not_repeat_the_secret() {
        let json = br#"{"provider":"acme","connection":"default","created_at":"sk-secret","credential":{}}"#;
        let message = read(json, "acme", "default").err().unwrap();
        assert_eq!(message, "/vault/acme/default.age is damaged: its content is not a credential (column 66)");
    }
}
