//! Keys that lie around where programs look for them: in the environment and in `.env` files.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::api_key::{self, Fields};
use crate::{
    provider::{self, Provider, ProviderName},
    secret::Secret,
    vault::{Kind, Vault, VaultError},
};

/// Directories below the one that is named; a project's own files are not deeper.
const MAX_DEPTH: usize = 4;
/// Other people's files, or made ones.
const SKIPPED: [&str; 6] = ["node_modules", "target", "venv", "vendor", "dist", "__pycache__"];
/// A `.env` file that is there to be copied holds no keys.
const TEMPLATES: [&str; 5] = ["example", "sample", "template", "dist", "defaults"];

/// Where a key was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Environment,
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Names and values of one place.
pub struct Variables {
    pub place: Place,
    pub values: BTreeMap<String, Secret<String>>,
}

/// What one place has for one provider.
pub struct Found {
    pub provider: ProviderName,
    pub place: Place,
    /// The variables that hold its fields.
    pub variables: Vec<String>,
    fields: Fields,
    wrong: Option<&'static str>,
}

/// How what was found stands to what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The provider is not connected.
    New,
    /// One of its connections holds the same.
    Stored,
    /// It is connected, but with something else.
    Differs,
    /// Not what the provider takes, for this reason.
    Wrong(&'static str),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "not stored",
            Self::Stored => "stored",
            Self::Differs => "differs from what is stored",
            Self::Wrong(why) => why,
        })
    }
}

/// The `.env` files of a directory and of those below it, or the one file that `path` names.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut next) = (Vec::new(), vec![(path.to_owned(), 0)]);
    while let Some((directory, depth)) = next.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // What is below may belong to anybody.
            Err(_) if depth > 0 => continue,
            Err(error) => return Err(error),
        };
        for entry in entries.flatten() {
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let Some(name) = name.to_str() else { continue };
            if kind.is_dir() && depth < MAX_DEPTH && !name.starts_with('.') && !SKIPPED.contains(&name) {
                next.push((entry.path(), depth + 1));
            } else if kind.is_file() && is_env_file(name) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `.env`, `.env.local`, but not `.env.example`.
fn is_env_file(name: &str) -> bool {
    match name.strip_prefix(".env") {
        Some("") => true,
        Some(rest) => rest.strip_prefix('.').is_some_and(|kind| !TEMPLATES.contains(&kind)),
        None => false,
    }
}

/// A file's assignments, read as dotenv readers do.
pub fn read(path: &Path) -> Result<Variables, dotenvy::Error> {
    let assignments = dotenvy::from_path_iter(path)?;
    let values = assignments.map(|pair| pair.map(|(name, value)| (name, Secret::new(value)))).collect::<Result<_, _>>()?;
    Ok(Variables { place: Place::File(path.to_owned()), values })
}

/// Everything in `places` that a variable of some provider names. What authsome itself hands out, and what is empty, is no key.
pub fn find(providers: &[Provider], places: &[Variables]) -> Vec<Found> {
    let of_place = |place: &Variables| providers.iter().filter_map(|provider| found(provider, place)).collect::<Vec<_>>();
    places.iter().flat_map(of_place).collect()
}

fn found(provider: &Provider, Variables { place, values }: &Variables) -> Option<Found> {
    let key = |value: &&Secret<String>| {
        let value = value.expose();
        !value.is_empty() && value != provider::PLACEHOLDER && *value != provider.placeholder
    };
    let (mut variables, mut fields) = (Vec::new(), Fields::new());
    for (variable, field) in named(provider) {
        if let (Some(value), false) = (values.get(variable).filter(key), fields.contains_key(field)) {
            variables.push(variable.to_owned());
            fields.insert(field.to_owned(), Secret::new(value.expose().clone()));
        }
    }
    let secret = |name: &String| provider.fields.iter().any(|field| field.secret && field.name == *name);
    if !fields.keys().any(secret) {
        return None;
    }
    let wrong = match api_key::verify(provider, &fields) {
        _ if fields.len() < provider.fields.len() => Some("incomplete: the provider takes more values"),
        _ if provider.needs_base_url() && provider.api_urls.is_empty() => Some("needs `login --base-url`"),
        Err(_) => Some("not of the form that the provider's keys have"),
        Ok(()) => None,
    };
    Some(Found { provider: provider.name.clone(), place: place.clone(), variables, fields, wrong })
}

/// Variable and field.
fn named(provider: &Provider) -> impl Iterator<Item = (&str, &str)> {
    let only = provider.fields.iter().find(|field| field.secret).map(|field| field.name.as_str());
    // A token made by hand is stored where a key would be.
    let field = move |name| if provider.fields.iter().any(|field| field.name == name) { Some(name) } else { only };
    let exports = provider.exports.iter().filter_map(move |export| Some((export.variable.as_str(), field(&export.field)?)));
    provider.env_var.as_deref().zip(only).into_iter().chain(exports)
}

impl Found {
    /// Reads the provider's connections.
    pub fn state(&self, vault: &Vault) -> Result<State, VaultError> {
        if let Some(wrong) = self.wrong {
            return Ok(State::Wrong(wrong));
        }
        let connections = vault.of(&self.provider)?;
        for connection in &connections {
            if let Some(record) = vault.load(&self.provider, connection)?
                && let Kind::ApiKey { fields } = &record.kind
                && same(fields, &self.fields)
            {
                return Ok(State::Stored);
            }
        }
        Ok(if connections.is_empty() { State::New } else { State::Differs })
    }

    /// Whether both hold the same values.
    pub fn same(&self, other: &Self) -> bool {
        same(&self.fields, &other.fields)
    }

    /// What `login` would store.
    pub fn fields(&self) -> Fields {
        self.fields.iter().map(|(name, value)| (name.clone(), Secret::new(value.expose().clone()))).collect()
    }
}

fn same(a: &Fields, b: &Fields) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((a_name, a), (b_name, b))| a_name == b_name && a.expose() == b.expose())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Source;

    fn provider(more: &str) -> Provider {
        let text = format!(
            r#"{{"name": "acme", "auth_type": "api_key", "api_url": "api.acme.test", "export": {{"ACME_TOKEN": "API_TOKEN"}},
                "api_key": {{"env_var": "ACME_KEY"{more}}}}}"#
        );
        Provider::parse(&text, Source::Bundled, None).unwrap()
    }

    fn place(values: &[(&str, &str)]) -> Variables {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect();
        Variables { place: Place::Environment, values }
    }

    #[test]
    fn templates_are_no_env_files() {
        for (name, want) in [(".env", true), (".env.local", true), (".env.example", false), (".environment", false), ("env", false)] {
            assert_eq!(is_env_file(name), want, "{name}");
        }
    }

    #[test]
    fn files_of_a_project_and_not_of_its_dependencies() {
        let project = tempfile::tempdir().unwrap();
        for path in [".env", "app/.env.local", "node_modules/x/.env", ".git/.env", "app/.env.sample"] {
            let path = project.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "A=b\n").unwrap();
        }
        let names: Vec<_> =
            files(project.path()).unwrap().iter().map(|path| path.strip_prefix(project.path()).unwrap().to_owned()).collect();
        assert_eq!(names, [Path::new(".env"), Path::new("app/.env.local")]);
    }

    #[test]
    fn a_key_is_found_under_each_of_its_variables() {
        let providers = [provider("")];
        for name in ["ACME_KEY", "ACME_TOKEN"] {
            let found = find(&providers, &[place(&[(name, "k-1"), ("OTHER", "x")])]);
            assert_eq!(found.iter().map(|found| found.variables.clone()).collect::<Vec<_>>(), [[name]]);
        }
    }

    #[test]
    fn what_authsome_hands_out_and_nothing_are_no_keys() {
        for value in ["", provider::PLACEHOLDER] {
            assert!(find(&[provider("")], &[place(&[("ACME_KEY", value)])]).is_empty(), "{value:?}");
        }
    }

    #[test]
    fn a_value_of_another_form_is_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let vault = Vault::open(home.path(), crate::vault::KeySource::Identity);
        let providers = [provider(r#", "key_pattern": "^k-[0-9]+$""#)];
        for (value, want) in [("k-1", true), ("x", false)] {
            let found = find(&providers, &[place(&[("ACME_KEY", value)])]);
            assert_eq!(found[0].state(&vault).unwrap() == State::New, want, "{value}");
        }
    }
}
