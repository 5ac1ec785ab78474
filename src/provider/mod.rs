//! Provider definitions: JSON as written ([`schema`]) becomes a typed, valid [`Provider`]; [`Catalog`] finds them.
use crate::{credential::Injection, route::ApiUrl};
use std::{fmt, path::Path, str::FromStr, sync::Arc};

/// `openai`, `github-mcp`: `[a-z0-9][a-z0-9._-]*`, at most 64 octets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderName(Arc<str>);
impl ProviderName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for ProviderName {
    type Err = ProviderError;
    fn from_str(_s: &str) -> Result<Self, ProviderError> {
        todo!()
    }
}
impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names file, field path, offending text, and what is accepted.
#[derive(Debug, thiserror::Error)]
#[error("placeholder")]
pub struct ProviderError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthType {
    ApiKey,
    OAuth2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Bundled,
    File(std::path::PathBuf),
}

/// A field `login` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub label: String,
    pub secret: bool,
}

/// One variable `export` prints: its name and the credential field its value comes from (`api_key`, `access_token`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    pub variable: String,
    pub field: String,
}

pub struct Provider {
    pub name: ProviderName,
    pub display_name: String,
    pub auth_type: AuthType,
    pub flow: String,
    pub api_urls: Vec<ApiUrl>,
    pub fields: Vec<Field>,
    pub injection: Arc<Injection>,
    /// What the child sees in place of the key: `authsome-proxy-managed` unless the file says otherwise.
    pub placeholder: String,
    pub exports: Vec<Export>,
    pub env_var: Option<String>,
    pub key_pattern: Option<regex::Regex>,
    pub docs_url: Option<String>,
    pub scrub: bool,
    pub source: Source,
    /// The definition as written, unknown fields kept (for `inspect`).
    pub document: serde_json::Value,
}

impl Provider {
    /// Whether an `api_url` says `{base_url}`, which a connection's record fills in.
    pub fn needs_base_url(&self) -> bool {
        todo!()
    }

    /// Parses and validates one file's text. `base_url` fills `{base_url}` (from the connection's record).
    pub fn parse(_text: &str, _source: Source, _base_url: Option<&str>) -> Result<Self, ProviderError> {
        todo!()
    }
}

/// Bundled definitions (compiled in) and those of `AUTHSOME_HOME/providers/*.json`, which override by name. Nothing is parsed before it is asked for.
pub struct Catalog {}

impl Catalog {
    pub fn open(_home: &Path) -> Result<Self, ProviderError> {
        todo!()
    }
    pub fn names(&self) -> Vec<ProviderName> {
        todo!()
    }
    /// `None`: no such provider.
    pub fn find(&self, _name: &ProviderName, _base_url: Option<&str>) -> Result<Option<Provider>, ProviderError> {
        todo!()
    }
}
