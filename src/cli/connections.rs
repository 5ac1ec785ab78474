//! `authsome connections …`, `get`, `set-default` and `whoami`
use super::{
    context::{self, Context, variable},
    report::Failure,
    status,
};
use crate::vault::ConnectionName;
use serde_json::{Value, json};

/// Look at connections and choose the default one
#[derive(Debug, clap::Subcommand)]
pub enum Connections {
    Inspect(Get),
    SetDefault(SetDefault),
}

/// Show one connection, secrets redacted
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome get github
  authsome get github --connection work --field status")]
pub struct Get {
    provider: String,
    /// Connection to show, if not the default one
    #[arg(long, value_name = "NAME")]
    connection: Option<ConnectionName>,
    /// Show this field only
    #[arg(long, value_name = "FIELD")]
    field: Option<String>,
}

/// Choose the connection that is used when none is named
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome set-default github work")]
pub struct SetDefault {
    provider: String,
    connection: ConnectionName,
}

/// Show whose files are used, and where they are
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome whoami")]
pub struct Whoami {}

impl Connections {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Inspect(command) => command.run(context),
            Self::SetDefault(command) => command.run(context),
        }
    }
}

impl Get {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let vault = context.vault()?;
        let provider = context::find(&context.catalog()?, &self.provider, None)?;
        let connection = context::connection(&vault, &provider.name, self.connection.as_ref())?;
        let found = status::all(&vault, &provider.name)?.into_iter().find(|status| status.connection == connection);
        let status = found.ok_or_else(|| Failure::NotConnected(provider.name.clone()))?;
        let mut details = status.details(Some(&provider));
        details.insert("provider".to_owned(), json!(provider.name.as_str()));
        if let Some(field) = self.field {
            let (name, value) = details
                .remove_entry(&field)
                .ok_or_else(|| Failure::UnknownField { field: field.clone(), known: details.keys().cloned().collect() })?;
            details = [(name, value)].into_iter().collect();
        }
        context.out.document(&Value::from(details))?;
        Ok(0)
    }
}

impl SetDefault {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let vault = context.vault()?;
        let provider = context::find(&context.catalog()?, &self.provider, None)?.name;
        context::connection(&vault, &provider, Some(&self.connection))?;
        if !vault.set_default(&provider, &self.connection)? {
            return Err(Failure::NotConnected(provider));
        }
        let document = json!({"status": "ok", "provider": provider.as_str(), "default_connection": self.connection.as_str()});
        context.out.done(&document, &format!("{provider} now uses {} by default.", self.connection))?;
        Ok(0)
    }
}

impl Whoami {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let uid = nix::unistd::geteuid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        let key = context.config.key.describe(&context.config.home.join("vault"));
        let run = variable("AUTHSOME_RUN_ID");
        if context.out.json {
            let document = json!({
                "authsome_version": env!("CARGO_PKG_VERSION"), "user": user, "home_directory": context.config.home, "vault_key": key, "run": run,
            });
            context.out.document(&document)?;
        } else {
            let inside = run.map_or_else(|| "no".to_owned(), |run| super::output::printable(&run));
            let home = context.config.home.display();
            context.out.data(&format!("user        {user}\nhome        {home}\nvault key   {key}\ninside run  {inside}\n"))?;
        }
        Ok(0)
    }
}
