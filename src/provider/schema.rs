//! Provider definitions as JSON writes them. Unknown fields are kept where the file is shown and ignored otherwise.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A provider definition.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// Version of this format; 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<u32>,
    /// The name commands use, also the file's name: `[a-z0-9][a-z0-9._-]*`.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    pub auth_type: AuthType,
    /// How `login` gets the credential by default: `api_key`, `pkce`, `device_code`, `dcr_pkce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    /// Where the credential belongs: `api.acme.test`, `https://host[:port][/path/prefix]` or `regex:PATTERN`.
    #[serde(default, alias = "host_url", skip_serializing_if = "Option::is_none")]
    pub api_url: Option<OneOrMany>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKey>,
    /// Browser sessions of the original program; ignored with a notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<serde_json::Value>,
    #[serde(default, alias = "docs", skip_serializing_if = "Option::is_none")]
    pub docs_url: Option<String>,
    /// `{"env": {"api_key": "NAME"}}` or `{"NAME": "API_TOKEN"}`.
    #[serde(default)]
    pub export: BTreeMap<String, Export>,
    /// What `login` asks for; one secret `api_key` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeMap<String, Field>>,
    /// Where the fields go; rules over what `api_key` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inject: Option<Vec<Inject>>,
    /// What a program inside a run sees in place of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// Whether an injected value that comes back in a response is overwritten; true if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthType {
    #[serde(rename = "api_key")]
    ApiKey,
    #[serde(rename = "oauth2")]
    OAuth2,
    #[serde(rename = "browser")]
    Browser,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected `HOST`, `https://HOST[:PORT][/PATH]`, `regex:PATTERN`, or a list of them")]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OAuth {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_authorization_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_endpoint: Option<String>,
    /// Fills `{base_url}` where the connection names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    #[serde(default)]
    pub scopes: Vec<String>,
    #[serde(default)]
    pub pkce: bool,
    #[serde(default)]
    pub supports_device_code: bool,
    #[serde(default)]
    pub supports_dcr: bool,
}

/// One header with an optional scheme in front of the key.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct ApiKey {
    /// `Authorization` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_name: Option<String>,
    /// `Bearer` if absent; null or empty for the bare key.
    #[serde(default = "bearer")]
    pub header_prefix: Option<String>,
    /// Where `login` finds a key when it is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_var: Option<String>,
    /// A regular expression that a whole key matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pattern: Option<String>,
}

fn bearer() -> Option<String> {
    Some("Bearer".to_owned())
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected `API_TOKEN`, `ACCESS_TOKEN`, or under `env` variable names by field")]
pub enum Export {
    /// Under `env`: field names to variable names.
    Fields(BTreeMap<String, String>),
    /// Under a variable's name: what its value is.
    Value(String),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Field {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether it is masked when typed and redacted when shown; true if absent.
    #[serde(default = "yes")]
    pub secret: bool,
}

fn yes() -> bool {
    true
}

/// One thing to write into a request. An entry that says `{access_token}` is for OAuth connections, every other one for typed fields;
/// without any of the first kind an access token goes into `Authorization: Bearer`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Inject {
    #[serde(flatten)]
    pub what: What,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<On>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected `header` and `value`, `basic` with `username` and `password`, `query` and `value`, or `path`")]
pub enum What {
    Header { header: String, value: String },
    Basic { basic: Basic },
    Query { query: String, value: String },
    Path { path: String },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Basic {
    pub username: String,
    pub password: String,
}

/// Only on requests to this host and path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct On {
    /// As in `api_url`, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `*` stays within a segment, `**` does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}
