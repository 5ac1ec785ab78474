//! `authsome list`
use super::{
    context::Context,
    output::{printable, table},
    report::Failure,
    status::{self, Status},
};
use crate::provider::{AuthType, Catalog, Provider, ProviderName};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Show the connected providers and their connections
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome list                 what is connected
  authsome list --all           every provider there is
  authsome list --json          {\"bundled\": […], \"custom\": […]}")]
pub struct List {
    /// Also providers that are not connected
    #[arg(long)]
    pub all: bool,
}

struct Entry {
    name: ProviderName,
    /// `None`: connections are left of a provider whose definition is gone or wrong.
    provider: Option<Provider>,
    custom: bool,
    connections: Vec<Status>,
}

impl List {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let entries = self.entries(context)?;
        if context.out.json {
            let of = |custom| entries.iter().filter(|entry| entry.custom == custom).map(Entry::to_json).collect::<Vec<_>>();
            context.out.document(&json!({"bundled": of(false), "custom": of(true)}))?;
        } else if entries.is_empty() {
            context.out.say("No provider is connected. `authsome list --all` shows what there is, `authsome login PROVIDER` connects one.");
        } else {
            let header = ["PROVIDER", "CONNECTION", "TYPE", "STATUS", "EXPIRES"].map(str::to_owned).to_vec();
            let rows: Vec<_> = std::iter::once(header).chain(entries.iter().flat_map(Entry::rows)).collect();
            context.out.data(&table(&rows))?;
        }
        Ok(self.warn(context, &entries))
    }

    fn entries(&self, context: &Context) -> Result<Vec<Entry>, Failure> {
        let (vault, catalog) = (context.vault()?, context.catalog()?);
        let mut names: BTreeSet<_> = vault.connections()?.into_iter().map(|(provider, _)| provider).collect();
        if self.all {
            names.extend(catalog.names());
        }
        let custom: BTreeSet<_> = catalog.custom_names().into_iter().collect();
        let entry = |name: ProviderName| {
            let connections = status::all(&vault, &name)?;
            let provider = definition(context, &catalog, &name, base_url(&connections));
            Ok(Entry { provider, custom: custom.contains(&name), connections, name })
        };
        names.into_iter().map(entry).collect()
    }

    /// What stands in the way of using them: said before a run meets it.
    fn warn(&self, context: &Context, entries: &[Entry]) -> u8 {
        let unreadable = entries.iter().flat_map(|entry| &entry.connections).filter_map(|status| status.record.as_ref().err());
        let mut code = 0;
        for error in unreadable {
            context.out.warn(&error.to_string());
            code = super::report::CREDENTIAL;
        }
        let connected = entries.iter().filter(|entry| !entry.connections.is_empty()).filter_map(|entry| entry.provider.as_ref());
        for conflict in super::conflicts::among(connected) {
            context.out.warn(&conflict);
        }
        code
    }
}

/// The default connection's, which a run would use.
fn base_url(connections: &[Status]) -> Option<&str> {
    let default = connections.iter().find(|status| status.is_default)?;
    default.record.as_ref().ok()?.base_url.as_deref()
}

/// A definition that is wrong is reported and does not hide the others.
fn definition(context: &Context, catalog: &Catalog, name: &ProviderName, base_url: Option<&str>) -> Option<Provider> {
    match catalog.find(name, base_url) {
        Ok(Some(provider)) => Some(provider),
        Ok(None) => {
            context.out.warn(&format!("{name} is connected, but its definition is gone"));
            None
        }
        Err(error) => {
            context.out.warn(&error.to_string());
            None
        }
    }
}

impl Entry {
    fn to_json(&self) -> Value {
        let connections: Vec<_> = self.connections.iter().map(|status| Value::from(status.summary())).collect();
        json!({
            "name": self.name.as_str(),
            "display_name": self.provider.as_ref().map_or(self.name.as_str(), |provider| &provider.display_name),
            "auth_type": self.auth_type(),
            "source": if self.custom { "custom" } else { "bundled" },
            "connections": connections,
        })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let kind = || self.auth_type().unwrap_or("?").to_owned();
        if self.connections.is_empty() {
            return vec![vec![self.name.to_string(), "-".to_owned(), kind(), "not connected".to_owned(), String::new()]];
        }
        let row = |status: &Status| {
            let mark = if status.is_default && self.connections.len() > 1 { " (default)" } else { "" };
            let expires = status.expires().unwrap_or_default();
            vec![printable(self.name.as_str()), format!("{}{mark}", status.connection), kind(), status.state().to_owned(), expires]
        };
        self.connections.iter().map(row).collect()
    }

    fn auth_type(&self) -> Option<&'static str> {
        match &self.provider {
            Some(provider) => Some(auth_type(provider)),
            None => self.connections.iter().find_map(|status| Some(status.record.as_ref().ok()?.kind.auth_type())),
        }
    }
}

/// As provider files write it.
pub fn auth_type(provider: &Provider) -> &'static str {
    match provider.auth_type {
        AuthType::ApiKey => "api_key",
        AuthType::OAuth2 => "oauth2",
        AuthType::Browser => "browser",
    }
}
