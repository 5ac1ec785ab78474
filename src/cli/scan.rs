//! `authsome scan`
use super::{
    context::Context,
    output::{printable, table},
    report::Failure,
};
use crate::{
    login::scan::{self, Found, Place, State, Variables},
    provider::{Provider, ProviderName},
    secret::Secret,
    vault::{ConnectionName, Record, Vault},
};
use serde_json::json;
use std::{env, path::PathBuf};

/// Find keys of providers in the environment and in `.env` files
///
/// What is found is compared with what is stored, by value; no value is printed. Directories are searched with those below them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome scan                   here and in the environment
  authsome scan ~/src/agent       another project
  authsome scan --import          store what is not stored yet; then remove it where it lies")]
pub struct Scan {
    /// Directories or files to look at, instead of the working directory
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Store the keys of providers that are not connected yet
    #[arg(long)]
    import: bool,
}

impl Scan {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let (vault, providers) = (context.vault()?, providers(context)?);
        let places = self.places(context)?;
        let found = scan::find(&providers, &places);
        let mut rows = Vec::new();
        for found in found {
            let state = found.state(&vault)?;
            rows.push((found, state));
        }
        let imported = if self.import { import(context, &vault, &rows)? } else { Vec::new() };
        let was_imported = |found: &Found, state: State| state == State::New && imported.contains(&found.provider);
        if context.out.json {
            let entry = |(found, state): &(Found, State)| {
                json!({"provider": found.provider.as_str(), "variables": found.variables, "place": found.place.to_string(),
                    "state": name(*state), "imported": was_imported(found, *state)})
            };
            context.out.document(&json!({"found": rows.iter().map(entry).collect::<Vec<_>>()}))?;
            return Ok(0);
        }
        if rows.is_empty() {
            context.out.say(&format!("No key of a known provider in {}.", described(&places)));
            return Ok(0);
        }
        let header = ["PROVIDER", "VARIABLE", "WHERE", "STATE"].map(str::to_owned).to_vec();
        let row = |(found, state): &(Found, State)| {
            let state = if was_imported(found, *state) { "imported".to_owned() } else { state.to_string() };
            vec![found.provider.to_string(), printable(&found.variables.join(", ")), printable(&found.place.to_string()), state]
        };
        context.out.data(&table(&std::iter::once(header).chain(rows.iter().map(row)).collect::<Vec<_>>()))?;
        if !imported.is_empty() {
            context.out.say("The keys are still where they were found: remove them there, since a run does not hide them.");
        } else if !self.import && rows.iter().any(|(_, state)| *state == State::New) {
            context.out.say("`authsome scan --import` stores what is not stored.");
        }
        Ok(0)
    }

    fn places(&self, context: &Context) -> Result<Vec<Variables>, Failure> {
        let text = |(name, value): (_, std::ffi::OsString)| {
            Some((std::ffi::OsString::into_string(name).ok()?, Secret::new(value.into_string().ok()?)))
        };
        let mut places = vec![Variables { place: Place::Environment, values: env::vars_os().filter_map(text).collect() }];
        let here = [PathBuf::from(".")];
        for path in if self.paths.is_empty() { &here[..] } else { &self.paths } {
            let files = scan::files(path).map_err(|source| Failure::File { action: "read", path: path.clone(), source })?;
            for file in files {
                match scan::read(&file) {
                    Ok(variables) => places.push(variables),
                    // A line it cannot read may hold a key, so dotenvy's error, which repeats it, is not shown.
                    Err(dotenvy::Error::Io(error)) => context.out.warn(&format!("{}: {error}", printable(&file.display().to_string()))),
                    Err(_) => context
                        .out
                        .warn(&format!("{} is not read: it has a line that is no assignment", printable(&file.display().to_string()))),
                }
            }
        }
        Ok(places)
    }
}

/// Those that take a key, as they are defined now. A definition that is wrong is `doctor`'s to report.
fn providers(context: &Context) -> Result<Vec<Provider>, Failure> {
    let catalog = context.catalog()?;
    let valid = catalog.names().into_iter().filter_map(|name| catalog.find(&name, None).ok().flatten());
    Ok(valid.filter(Provider::takes_key).collect())
}

/// Stores each new key that is the only one for its provider and not another provider's as well.
fn import(context: &Context, vault: &Vault, rows: &[(Found, State)]) -> Result<Vec<ProviderName>, Failure> {
    let new = || rows.iter().filter(|(_, state)| *state == State::New).map(|(found, _)| found);
    let mut imported: Vec<ProviderName> = Vec::new();
    for found in new() {
        let name = &found.provider;
        if imported.contains(name) {
            continue;
        }
        let variable = found.variables.first().map_or("", String::as_str);
        if new().any(|other| other.provider == *name && !other.same(found)) {
            context.out.warn(&format!("{name}: different keys were found; choose one: authsome login {name} --stdin"));
        } else if let Some(other) = new().find(|other| other.provider != *name && other.variables == found.variables) {
            context.out.warn(&format!(
                "{variable} may be a key of {name} or of {}; say which: authsome login {name} --from-env {variable}",
                other.provider
            ));
        } else {
            let record = Record::of_keys(name.clone(), ConnectionName::default(), None, found.fields());
            vault.store(&record, false)?;
            imported.push(name.clone());
        }
    }
    Ok(imported)
}

fn name(state: State) -> &'static str {
    match state {
        State::New => "new",
        State::Stored => "stored",
        State::Differs => "differs",
        State::Wrong(_) => "wrong",
    }
}

fn described(places: &[Variables]) -> String {
    match places.len() - 1 {
        0 => "the environment; there is no .env file".to_owned(),
        1 => "the environment and one .env file".to_owned(),
        files => format!("the environment and {files} .env files"),
    }
}
