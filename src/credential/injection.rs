//! What a provider's definition says about where its credential goes, compiled once.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobMatcher};
use http::{HeaderName, header};

use crate::{
    host::Host,
    provider::schema,
    route::{HostPattern, HostPatternError, is_canonical},
    secret::Secret,
};

/// A provider's `inject` list (or what `api_key` says of it), compiled.
#[derive(Debug)]
pub struct Injection {
    pub(super) entries: Vec<Entry>,
}

/// One thing to write, on the requests it is meant for.
#[derive(Debug)]
pub(super) struct Entry {
    host: Option<HostPattern>,
    path: Option<GlobMatcher>,
    pub(super) write: Write,
}

#[derive(Debug)]
pub(super) enum Write {
    Header {
        name: HeaderName,
        value: Template,
    },
    Basic {
        username: Template,
        password: Template,
    },
    Query {
        name: String,
        value: Template,
    },
    /// In place of the placeholder, wherever it stands in the path.
    Path {
        value: Template,
    },
}

/// Text with `{field}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectionError {
    #[error("`{0}` is not a header name")]
    Header(String),
    /// The proxy's own: whose request it is, where it ends, what concerns one connection only.
    #[error("the header `{0}` belongs to the connection and cannot carry a credential")]
    Reserved(HeaderName),
    #[error("`on` names neither a host nor a path")]
    NoCondition,
    #[error("`{0}` has an unmatched brace")]
    Brace(String),
    #[error("`{text}` names the field `{field}`, which `fields` does not have")]
    Field { text: String, field: String },
    #[error("`{glob}` is not a path glob: {reason}")]
    Glob { glob: String, reason: String },
    #[error(transparent)]
    Host(#[from] HostPatternError),
}

impl Injection {
    /// `fields`: the names a template may use.
    pub fn compile(entries: &[schema::Inject], fields: &[String]) -> Result<Self, InjectionError> {
        let template = |text: &str| Template::parse(text, fields);
        let compiled = entries.iter().map(|entry| {
            let write = match &entry.what {
                schema::What::Header { header, value } => Write::Header { name: header_name(header)?, value: template(value)? },
                schema::What::Basic { basic } => {
                    Write::Basic { username: template(&basic.username)?, password: template(&basic.password)? }
                }
                schema::What::Query { query, value } => Write::Query { name: query.clone(), value: template(value)? },
                schema::What::Path { path } => Write::Path { value: template(path)? },
            };
            let on = entry.on.as_ref();
            // A misspelled condition is an unknown field: without this the entry would apply everywhere.
            if on.is_some_and(|on| on.host.is_none() && on.path.is_none()) {
                return Err(InjectionError::NoCondition);
            }
            let host = on.and_then(|on| on.host.as_deref()).map(str::parse::<HostPattern>).transpose()?;
            let path = on.and_then(|on| on.path.as_deref()).map(glob).transpose()?;
            Ok(Entry { host, path, write })
        });
        Ok(Self { entries: compiled.collect::<Result<_, InjectionError>>()? })
    }

    /// The header fields that are written, whatever the request.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.entries.iter().filter_map(|entry| match &entry.write {
            Write::Header { name, .. } => Some(name),
            Write::Basic { .. } => Some(&header::AUTHORIZATION),
            Write::Query { .. } | Write::Path { .. } => None,
        })
    }
}

impl Entry {
    pub(super) fn applies(&self, host: &Host, path: &str) -> bool {
        // A path that servers read in more than one way meets no condition: it may lead out of what the glob names.
        let is_on = |glob: &GlobMatcher| is_canonical(path) && glob.is_match(path);
        self.host.as_ref().is_none_or(|pattern| pattern.matches(host)) && self.path.as_ref().is_none_or(is_on)
    }
}

impl Template {
    fn parse(text: &str, fields: &[String]) -> Result<Self, InjectionError> {
        let brace = || InjectionError::Brace(text.to_owned());
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (field, after) = after.split_once('}').ok_or_else(brace)?;
            if !fields.iter().any(|known| known == field) {
                return Err(InjectionError::Field { text: text.to_owned(), field: field.to_owned() });
            }
            parts.extend([Part::Text(before.to_owned()), Part::Field(field.to_owned())]);
            rest = after;
        }
        if rest.contains('}') {
            return Err(brace());
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The text with the values in it, each passed through `encode`; the name of a field that has none otherwise.
    pub(super) fn fill(
        &self,
        fields: &BTreeMap<String, Secret<String>>,
        encode: impl Fn(&str) -> String,
    ) -> Result<Secret<String>, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Field(name) => text.push_str(&encode(fields.get(name).ok_or_else(|| name.clone())?.expose())),
            }
        }
        Ok(Secret::new(text))
    }
}

/// RFC 9110 §7.2 and §8.6, RFC 9112 §6.1, and what §7.6.1 of RFC 9110 removes on the way.
const RESERVED: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

fn header_name(text: &str) -> Result<HeaderName, InjectionError> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| InjectionError::Header(text.to_owned()))?;
    if RESERVED.contains(&name) { Err(InjectionError::Reserved(name)) } else { Ok(name) }
}

/// `*` stays within a segment, `**` does not.
fn glob(text: &str) -> Result<GlobMatcher, InjectionError> {
    let built = GlobBuilder::new(text).literal_separator(true).backslash_escape(false).build();
    built.map(|glob| glob.compile_matcher()).map_err(|error| InjectionError::Glob { glob: text.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(entry: &str) -> String {
        let entries: Vec<schema::Inject> = serde_json::from_str(&format!("[{entry}]")).unwrap();
        Injection::compile(&entries, &["api_key".to_owned()]).unwrap_err().to_string()
    }

    #[test]
    fn headers_of_the_connection_carry_no_credential() {
        for name in ["Host", "content-length", "Transfer-Encoding", "connection", "TE", "upgrade", "trailer", "keep-alive"] {
            let error = error(&format!(r#"{{"header": "{name}", "value": "{{api_key}}"}}"#));
            assert_eq!(error, format!("the header `{}` belongs to the connection and cannot carry a credential", name.to_lowercase()));
        }
    }

    #[test]
    fn wrong_entries_say_why() {
        for (entry, want) in [
            (r#"{"header": "X", "value": "{api_key}", "on": {"hots": "acme.test"}}"#, "`on` names neither a host nor a path"),
            (r#"{"header": "X", "value": "{api_key}", "on": {}}"#, "`on` names neither a host nor a path"),
            (r#"{"header": "a b", "value": "{api_key}"}"#, "`a b` is not a header name"),
            (r#"{"header": "X", "value": "{api_key"}"#, "`{api_key` has an unmatched brace"),
            (r#"{"query": "k", "value": "{sid}"}"#, "`{sid}` names the field `sid`, which `fields` does not have"),
        ] {
            assert_eq!(error(entry), want, "{entry}");
        }
    }
}
