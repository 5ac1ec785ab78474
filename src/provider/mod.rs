//! Provider definitions: JSON as written ([`schema`]) becomes a typed, valid [`Provider`]; [`Catalog`] finds them.

use std::{collections::BTreeSet, fmt, io, path::PathBuf, str::FromStr, sync::Arc};

use regex::bytes::{Regex, RegexBuilder};
use serde_path_to_error::Segment;

use crate::{
    credential::Injection,
    route::{ApiUrl, ApiUrlError},
};

mod catalog;
pub mod schema;

pub use catalog::Catalog;
pub use schema::AuthType;

use schema::{ApiKey, Basic, Document, Inject, OneOrMany, What};

/// What the child sees in place of a key, where the definition names nothing else.
pub const PLACEHOLDER: &str = "authsome-proxy-managed";
/// The one field of a definition that names none.
const API_KEY: &str = "api_key";
/// The field of an OAuth connection's record.
const ACCESS_TOKEN: &str = "access_token";
/// The base URL of a connection, in an `api_url`.
const BASE_URL: &str = "{base_url}";
/// Bytes of a compiled `key_pattern`.
const PATTERN_SIZE_LIMIT: usize = 1 << 20;

/// `openai`, `github-mcp`: `[a-z0-9][a-z0-9._-]*`, at most 64 octets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderName(Arc<str>);

/// Names the file, the field, the offending text and what is accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("`{0}` is not a provider name (lower-case letters, digits, `.`, `_`, `-`; at most 64)")]
    Name(String),
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("{origin}: {field}: {reason}")]
    Field { origin: Source, field: String, reason: String },
    #[error("{}: name: `{found}` in a file for `{wanted}`", path.display())]
    Misnamed { path: PathBuf, found: ProviderName, wanted: ProviderName },
    #[error("provider {0} is registered already")]
    Exists(ProviderName),
}

/// Where a definition came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Bundled,
    File(PathBuf),
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

/// A valid definition.
pub struct Provider {
    pub name: ProviderName,
    pub display_name: String,
    pub auth_type: AuthType,
    pub flow: String,
    pub api_urls: Vec<ApiUrl>,
    /// OAuth endpoints; nothing is ever injected there.
    pub endpoints: Vec<ApiUrl>,
    pub fields: Vec<Field>,
    /// For keys and tokens that were typed in.
    pub injection: Arc<Injection>,
    /// For the access tokens of OAuth connections.
    pub oauth_injection: Arc<Injection>,
    /// What the child sees in place of the key.
    pub placeholder: String,
    pub exports: Vec<Export>,
    pub env_var: Option<String>,
    /// Matches a whole key.
    pub key_pattern: Option<Regex>,
    pub docs_url: Option<String>,
    pub scrub: bool,
    pub source: Source,
    /// The definition as written, unknown fields kept (for `inspect`).
    pub document: serde_json::Value,
    needs_base_url: bool,
}

impl Provider {
    /// Parses and validates one file's text. `base_url` fills `{base_url}` (from the connection's record).
    pub fn parse(text: &str, source: Source, base_url: Option<&str>) -> Result<Self, ProviderError> {
        let error = |field: &str, reason: String| ProviderError::Field { origin: source.clone(), field: field.to_owned(), reason };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let document: serde_json::Value =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|problem| error("JSON", problem.into_inner().to_string()))?;
        deserializer.end().map_err(|problem| error("JSON", problem.to_string()))?;
        let written: Document = serde_path_to_error::deserialize(&document).map_err(|problem| {
            let reason = with_offending(problem.inner().to_string(), offending(&document, problem.path()));
            error(&problem.path().to_string(), reason)
        })?;
        let name: ProviderName = written.name.parse().map_err(|problem: ProviderError| error("name", problem.to_string()))?;
        let fields = fields(&written);
        let injection = injection(&written, &fields).map_err(|(field, reason)| error(field, reason))?;
        let oauth_injection = oauth_injection(&written, &fields).map_err(|(field, reason)| error(field, reason))?;
        let default = written.oauth.as_ref().and_then(|oauth| oauth.base_url.as_deref());
        let (api_urls, needs_base_url) =
            api_urls(&written, base_url.or(default)).map_err(|(at, problem)| error(&at, problem.to_string()))?;
        let api_key = written.api_key.clone().unwrap_or_default();
        let key_pattern = api_key.key_pattern.as_deref().map(key_pattern).transpose();
        Ok(Self {
            display_name: written.display_name.clone().unwrap_or_else(|| name.to_string()),
            auth_type: written.auth_type,
            flow: written.flow.clone().unwrap_or_else(|| API_KEY.to_owned()),
            api_urls,
            endpoints: endpoints(&written, base_url.or(default)).map_err(|(at, problem)| error(&at, problem.to_string()))?,
            exports: exports(&written).map_err(|(at, reason)| error(&at, reason))?,
            env_var: api_key.env_var.map(|name| variable(name).map_err(|reason| error("api_key.env_var", reason))).transpose()?,
            key_pattern: key_pattern.map_err(|problem| error("api_key.key_pattern", problem.to_string()))?,
            placeholder: written.placeholder.clone().unwrap_or_else(|| PLACEHOLDER.to_owned()),
            docs_url: written.docs_url.clone(),
            scrub: written.scrub.unwrap_or(true),
            injection: Arc::new(injection),
            oauth_injection: Arc::new(oauth_injection),
            name,
            fields,
            source,
            document,
            needs_base_url,
        })
    }

    /// Whether an `api_url` says `{base_url}`, which a connection's record may fill in.
    pub fn needs_base_url(&self) -> bool {
        self.needs_base_url
    }

    /// Whether a key or token of the user's own can be stored: also some OAuth providers take one.
    pub fn takes_key(&self) -> bool {
        self.auth_type == AuthType::ApiKey || self.document.get("api_key").is_some_and(serde_json::Value::is_object)
    }

    /// The secret fields, unless the definition turns scrubbing off.
    pub fn scrubbed_fields(&self) -> Vec<String> {
        let secret = self.fields.iter().filter(|field| field.secret).map(|field| field.name.clone());
        if self.scrub { secret.chain([ACCESS_TOKEN.to_owned()]).collect() } else { Vec::new() }
    }
}

/// Characters of the offending text that an error shows.
const SHOWN: usize = 120;

fn with_offending(reason: String, offending: Option<&serde_json::Value>) -> String {
    let Some(value) = offending else { return reason };
    let text = value.to_string();
    if reason.contains(text.trim_matches('"')) {
        return reason;
    }
    let shown: String = text.chars().take(SHOWN).collect();
    format!("{reason}, not `{shown}{}`", if shown.len() < text.len() { "…" } else { "" })
}

/// What stands at `path`; `None` for the whole document.
fn offending<'a>(document: &'a serde_json::Value, path: &serde_path_to_error::Path) -> Option<&'a serde_json::Value> {
    let mut value = document;
    for segment in path.iter() {
        value = match segment {
            Segment::Seq { index } => value.get(index)?,
            Segment::Map { key } => value.get(key)?,
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    path.iter().next().map(|_| value)
}

fn fields(written: &Document) -> Vec<Field> {
    let Some(fields) = &written.fields else {
        return vec![Field { name: API_KEY.to_owned(), label: "API key".to_owned(), secret: true }];
    };
    let field = |(name, field): (&String, &schema::Field)| Field {
        name: name.clone(),
        label: field.label.clone().unwrap_or_else(|| name.clone()),
        secret: field.secret,
    };
    fields.iter().map(field).collect()
}

/// The `inject` list, or the one header that `api_key` describes.
fn injection(written: &Document, fields: &[Field]) -> Result<Injection, (&'static str, String)> {
    let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
    match &written.inject {
        Some(entries) => {
            let entries: Vec<Inject> = entries.iter().filter(|entry| !is_for_oauth(entry, &names)).cloned().collect();
            Injection::compile(&entries, &names).map_err(|error| ("inject", error.to_string()))
        }
        None => {
            let header = ApiKey { header_prefix: Some("Bearer".to_owned()), ..ApiKey::default() };
            let first = names.first().map_or(API_KEY, String::as_str);
            header_of(written.api_key.as_ref().unwrap_or(&header), first).map_err(|error| ("api_key", error))
        }
    }
}

/// An access token goes where the definition says, or where RFC 6750 §2.1 says.
fn oauth_injection(written: &Document, fields: &[Field]) -> Result<Injection, (&'static str, String)> {
    let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
    let entries: Vec<Inject> = written.inject.iter().flatten().filter(|entry| is_for_oauth(entry, &names)).cloned().collect();
    if !entries.is_empty() {
        return Injection::compile(&entries, &[ACCESS_TOKEN.to_owned()]).map_err(|error| ("inject", error.to_string()));
    }
    let bearer = ApiKey { header_prefix: Some("Bearer".to_owned()), ..ApiKey::default() };
    let header = written.api_key.as_ref().filter(|_| written.auth_type == AuthType::ApiKey).unwrap_or(&bearer);
    header_of(header, ACCESS_TOKEN).map_err(|error| ("api_key", error))
}

/// It says `{access_token}`, and that is not what a typed field happens to be called.
fn is_for_oauth(entry: &Inject, fields: &[String]) -> bool {
    let texts = match &entry.what {
        What::Header { value, .. } | What::Query { value, .. } => [value.as_str(), ""],
        What::Basic { basic } => [basic.username.as_str(), basic.password.as_str()],
        What::Path { path } => [path.as_str(), ""],
    };
    let token = format!("{{{ACCESS_TOKEN}}}");
    texts.iter().any(|text| text.contains(&token)) && !fields.iter().any(|field| field == ACCESS_TOKEN)
}

fn header_of(api_key: &ApiKey, field: &str) -> Result<Injection, String> {
    let name = api_key.header_name.clone().unwrap_or_else(|| "Authorization".to_owned());
    let value = match api_key.header_prefix.as_deref() {
        // RFC 7617: the scheme's value is not the key but the base64 of a pair.
        Some(prefix) if prefix.trim().eq_ignore_ascii_case("basic") && name.eq_ignore_ascii_case("authorization") => {
            let basic = Basic { username: format!("{{{field}}}"), password: String::new() };
            let entry = Inject { what: What::Basic { basic }, on: None };
            return Injection::compile(&[entry], &[field.to_owned()]).map_err(|error| error.to_string());
        }
        Some(prefix) if !prefix.is_empty() => format!("{} {{{field}}}", prefix.trim_end()),
        _ => format!("{{{field}}}"),
    };
    let entry = Inject { what: What::Header { header: name, value }, on: None };
    Injection::compile(&[entry], &[field.to_owned()]).map_err(|error| error.to_string())
}

/// Also whether any of them waits for a base URL.
fn api_urls(written: &Document, base_url: Option<&str>) -> Result<(Vec<ApiUrl>, bool), (String, ApiUrlError)> {
    let (texts, one) = match &written.api_url {
        None => return Ok((Vec::new(), false)),
        Some(OneOrMany::One(text)) => (std::slice::from_ref(text), true),
        Some(OneOrMany::Many(texts)) => (texts.as_slice(), false),
    };
    let mut urls = Vec::new();
    let mut needs = false;
    for (index, text) in texts.iter().enumerate() {
        let text = match (text.contains(BASE_URL), base_url) {
            (false, _) => text.clone(),
            (true, Some(base_url)) => {
                needs = true;
                text.replace(BASE_URL, base_url.trim_end_matches('/'))
            }
            (true, None) => {
                needs = true;
                continue;
            }
        };
        let at = || if one { "api_url".to_owned() } else { format!("api_url[{index}]") };
        urls.push(text.parse().map_err(|problem| (at(), problem))?);
    }
    Ok((urls, needs))
}

/// Only https is ever opened, so an endpoint of another scheme, or one that waits for a base URL, is out of reach.
fn endpoints(written: &Document, base_url: Option<&str>) -> Result<Vec<ApiUrl>, (String, ApiUrlError)> {
    let Some(oauth) = &written.oauth else { return Ok(Vec::new()) };
    let urls = [
        ("authorization_url", &oauth.authorization_url),
        ("token_url", &oauth.token_url),
        ("revocation_url", &oauth.revocation_url),
        ("device_authorization_url", &oauth.device_authorization_url),
        ("registration_endpoint", &oauth.registration_endpoint),
    ];
    let mut endpoints = Vec::new();
    for (field, url) in urls.into_iter().filter_map(|(field, url)| Some((field, url.as_deref()?))) {
        let filled = base_url.map_or_else(|| url.to_owned(), |base_url| url.replace(BASE_URL, base_url.trim_end_matches('/')));
        let bare = filled.split(['?', '#']).next().unwrap_or_default();
        match bare.parse() {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(ApiUrlError::Scheme(_) | ApiUrlError::NoBaseUrl(_)) => {}
            Err(problem) => return Err((format!("oauth.{field}"), problem)),
        }
    }
    Ok(endpoints)
}

fn exports(written: &Document) -> Result<Vec<Export>, (String, String)> {
    let mut exports = Vec::new();
    for (key, export) in &written.export {
        match export {
            schema::Export::Fields(names) => {
                for (field, name) in names {
                    let variable = variable(name.clone()).map_err(|reason| (format!("export.{key}.{field}"), reason))?;
                    exports.push(Export { variable, field: field.clone() });
                }
            }
            schema::Export::Value(value) => {
                let field = match value.as_str() {
                    "API_TOKEN" => API_KEY,
                    "ACCESS_TOKEN" => ACCESS_TOKEN,
                    other => return Err((format!("export.{key}"), format!("`{other}` is neither API_TOKEN nor ACCESS_TOKEN"))),
                };
                let variable = variable(key.clone()).map_err(|reason| (format!("export.{key}"), reason))?;
                exports.push(Export { variable, field: field.to_owned() });
            }
        }
    }
    let mut seen = BTreeSet::new();
    for export in &exports {
        if !seen.insert(&export.variable) {
            return Err(("export".to_owned(), format!("`{}` is named twice", export.variable)));
        }
    }
    Ok(exports)
}

/// Names that would change what runs, not what it knows: a definition from a stranger must not set them.
const NOT_FOR_EXPORT: [&str; 9] = ["PATH", "HOME", "IFS", "ENV", "BASH_ENV", "SHELL", "PYTHONPATH", "NODE_OPTIONS", "PERL5LIB"];

/// IEEE Std 1003.1 §8.1.
fn variable(name: String) -> Result<String, String> {
    let shaped =
        !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let dangerous = NOT_FOR_EXPORT.contains(&name.as_str()) || name.starts_with("LD_") || name.starts_with("AUTHSOME_");
    if shaped && !dangerous { Ok(name) } else { Err(format!("`{name}` is not a name for an exported variable")) }
}

fn key_pattern(text: &str) -> Result<Regex, regex::Error> {
    // As written where it is anchored already: the text is shown when a key does not match.
    let anchored = text.starts_with('^') && text.ends_with('$') && !text.contains('|');
    let whole = if anchored { text.to_owned() } else { format!("^(?:{text})$") };
    RegexBuilder::new(&whole).unicode(false).size_limit(PATTERN_SIZE_LIMIT).build()
}

impl ProviderName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProviderName {
    type Err = ProviderError;

    fn from_str(text: &str) -> Result<Self, ProviderError> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if first && text.len() <= 64 && text.bytes().all(inner) { Ok(Self(text.into())) } else { Err(ProviderError::Name(text.to_owned())) }
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled => f.write_str("bundled"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<Provider, String> {
        let text = format!(r#"{{"name": "acme", "auth_type": "api_key", {rest}}}"#);
        Provider::parse(&text, Source::File("acme.json".into()), None).map_err(|error| error.to_string())
    }

    #[test]
    fn names() {
        for text in ["a", "openai", "github-mcp", "x.y_z", "7"] {
            assert_eq!(text.parse::<ProviderName>().unwrap().as_str(), text);
        }
        let long = "a".repeat(65);
        for text in ["", "OpenAI", "-a", ".a", "..", "a/b", "a b", "ä", "a\0", &long] {
            assert!(text.parse::<ProviderName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn errors_name_the_field_the_text_and_what_is_accepted() {
        for (rest, want) in [
            (r#""api_url": 5"#, "api_url: expected `HOST`, `https://HOST[:PORT][/PATH]`, `regex:PATTERN`, or a list of them, not `5`"),
            (r#""api_url": "http://acme.test""#, "api_url: `http://acme.test` is not an https URL"),
            (r#""api_url": ["a.test", "b c"]"#, "api_url[1]: `b c` is not a host name"),
            (r#""export": {"A": "KEY"}"#, "export.A: `KEY` is neither API_TOKEN nor ACCESS_TOKEN"),
            (r#""export": {"A": 5}"#, "export.A: expected `API_TOKEN`, `ACCESS_TOKEN`, or under `env` variable names by field, not `5`"),
            (r#""export": {"env": {"api_key": "PATH"}}"#, "export.env.api_key: `PATH` is not a name for an exported variable"),
            (r#""export": {"A": "API_TOKEN", "env": {"api_key": "A"}}"#, "export: `A` is named twice"),
            (
                r#""inject": [{"path": "{api_key}"}, {"heder": "X"}]"#,
                r#"inject[1]: expected `header` and `value`, `basic` with `username` and `password`, `query` and `value`, or `path`, not `{"heder":"X"}`"#,
            ),
            (
                r#""inject": [{"header": "Host", "value": "x"}]"#,
                "inject: the header `host` belongs to the connection and cannot carry a credential",
            ),
            (r#""fields": {"a": {"label": 5}}"#, "fields.a.label: invalid type: integer `5`, expected a string"),
            (
                r#""oauth": {"token_url": "https://acme.test/oauth//token"}"#,
                "oauth.token_url: `/oauth//token` is no path prefix (no dot segments, no empty segments, no query)",
            ),
        ] {
            assert_eq!(parse(rest).map(|_| ()), Err(format!("acme.json: {want}")), "{rest}");
        }
        let error = Provider::parse(r#"{"name": "acme", "auth_type": "key"}"#, Source::Bundled, None).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "bundled: auth_type: unknown variant `key`, expected one of `api_key`, `oauth2`, `browser`");
    }

    #[test]
    fn both_shapes_of_export_and_old_names_are_read() {
        let provider =
            parse(r#""host_url": "api.acme.test", "docs": "https://acme.test", "export": {"env": {"api_key": "ACME_KEY"}}, "other": 1"#);
        let provider = provider.unwrap();
        assert_eq!(provider.api_urls[0].to_string(), "https://api.acme.test");
        assert_eq!(provider.exports, [Export { variable: "ACME_KEY".into(), field: "api_key".into() }]);
        assert_eq!((provider.docs_url.as_deref(), &provider.document["other"]), (Some("https://acme.test"), &1.into()));
    }

    #[test]
    fn a_base_url_is_filled_in_when_there_is_one() {
        let text =
            r#"{"name": "acme", "auth_type": "oauth2", "api_url": "{base_url}/api", "oauth": {"token_url": "{base_url}/token?a=b"}}"#;
        let without = Provider::parse(text, Source::Bundled, None).unwrap();
        assert_eq!((without.api_urls.len(), without.endpoints.len(), without.needs_base_url()), (0, 0, true));
        let with = Provider::parse(text, Source::Bundled, Some("https://acme.test/")).unwrap();
        let all: Vec<_> = with.api_urls.iter().chain(&with.endpoints).map(ToString::to_string).collect();
        assert_eq!(all, ["https://acme.test/api", "https://acme.test/token"]);
    }

    #[test]
    fn a_typed_field_may_be_called_access_token() {
        let provider = parse(r#""fields": {"access_token": {}}, "inject": [{"header": "X-Key", "value": "{access_token}"}]"#).unwrap();
        assert_eq!(provider.injection.headers().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-key"]);
    }
}
