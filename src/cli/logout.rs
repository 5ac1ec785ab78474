//! `authsome logout` and `authsome revoke`
use super::{
    context::{self, Context},
    report::Failure,
};
use crate::{
    provider::ProviderName,
    vault::{ConnectionName, Vault},
};
use serde_json::json;

/// Remove one connection
///
/// The service is not told: a key that is to be worthless must be deleted there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome logout openai                        the default connection
  authsome logout github --connection work      another one")]
pub struct Logout {
    provider: String,
    /// Connection to remove, if not the default one
    #[arg(long, value_name = "NAME")]
    connection: Option<ConnectionName>,
}

/// Remove every connection of a provider
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome revoke github")]
pub struct Revoke {
    provider: String,
}

impl Logout {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let vault = context.vault()?;
        let provider = stored(context, &vault, &self.provider)?;
        let connection = context::connection(&vault, &provider, self.connection.as_ref())?;
        vault.remove(&provider, &connection)?;
        let document = json!({"status": "logged_out", "provider": provider.as_str(), "connection": connection.as_str()});
        context.out.done(&document, &format!("Removed {provider}/{connection}."))?;
        Ok(0)
    }
}

impl Revoke {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let vault = context.vault()?;
        let provider = stored(context, &vault, &self.provider)?;
        let connections = vault.of(&provider)?;
        if connections.is_empty() {
            return Err(Failure::NotConnected(provider));
        }
        for connection in &connections {
            vault.remove(&provider, connection)?;
        }
        let document = json!({"status": "revoked", "provider": provider.as_str()});
        context.out.done(&document, &format!("Removed {} connection(s) of {provider}.", connections.len()))?;
        Ok(0)
    }
}

/// A provider with connections is enough: its definition may be gone, or be the one that is broken.
fn stored(context: &Context, vault: &Vault, name: &str) -> Result<ProviderName, Failure> {
    if let Ok(provider) = name.parse::<ProviderName>()
        && !vault.of(&provider)?.is_empty()
    {
        return Ok(provider);
    }
    Ok(context::find(&context.catalog()?, name, None)?.name)
}
