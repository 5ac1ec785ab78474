//! What every command works with.
use super::{output::Output, report::Failure};
use crate::{
    config::Config,
    provider::{Catalog, Provider, ProviderName},
    run,
    vault::{ConnectionName, Vault},
};
use std::env;

pub struct Context {
    pub out: Output,
    pub config: Config,
}

/// Set for the program of any run.
const RUN_VARIABLE: &str = "AUTHSOME_RUN_ID";

/// A variable's value; one that is not text counts as not set.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

impl Context {
    /// The vault, which no program inside a run is to use. In a transparent run it is not there anyway; elsewhere this is courtesy.
    pub fn vault(&self) -> Result<Vault, Failure> {
        self.outside_run()?;
        Ok(Vault::open(&self.config.home, self.config.key.clone()))
    }

    pub fn outside_run(&self) -> Result<(), Failure> {
        let marked = self.config.home.join(run::MARKER).exists();
        match variable(RUN_VARIABLE) {
            Some(id) => Err(Failure::InsideRun(Some(id))),
            None if marked => Err(Failure::InsideRun(None)),
            None => Ok(()),
        }
    }

    pub fn catalog(&self) -> Result<Catalog, Failure> {
        Ok(Catalog::open(&self.config.home)?)
    }
}

/// The definition of that name, or an error with the nearest one there is.
pub fn find(catalog: &Catalog, name: &str, base_url: Option<&str>) -> Result<Provider, Failure> {
    let unknown = || Failure::UnknownProvider { name: name.to_owned(), nearest: nearest(name, &catalog.names()) };
    let parsed: ProviderName = name.parse().map_err(|_| unknown())?;
    catalog.find(&parsed, base_url)?.ok_or_else(unknown)
}

/// The connection named, or the provider's default one; it exists.
pub fn connection(vault: &Vault, provider: &ProviderName, named: Option<&ConnectionName>) -> Result<ConnectionName, Failure> {
    let existing = vault.of(provider)?;
    match named {
        Some(name) if existing.contains(name) => Ok(name.clone()),
        Some(name) => Err(Failure::NoConnection { provider: provider.clone(), connection: name.clone(), existing }),
        None if existing.is_empty() => Err(Failure::NotConnected(provider.clone())),
        None => vault.default_connection(provider)?.ok_or_else(|| Failure::NoDefault { provider: provider.clone(), existing }),
    }
}

/// Above this a name is taken for a slip of the other (Jaro-Winkler, 0 to 1); clap uses 0.7 for flags.
const SIMILAR: f64 = 0.75;

fn nearest(name: &str, known: &[ProviderName]) -> Option<String> {
    let scored = known.iter().map(|other| (strsim::jaro_winkler(name, other.as_str()), other));
    scored.filter(|(score, _)| *score > SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other.to_string())
}
