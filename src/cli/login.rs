//! `authsome login`
use super::{
    context::{self, Context, variable},
    report::Failure,
};
use crate::{
    login::{LoginError, api_key, api_key::Input},
    provider::Provider,
    vault::{ConnectionName, Record, VaultError},
};
use serde_json::json;

/// Store a credential
///
/// API keys are asked for on the terminal without echo, read from stdin, or taken from a variable; never from the command line, where every
/// process can read them. With no flag, the provider's own variable (OPENAI_API_KEY, …) is used if it is set.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome login openai                                   asks for the key
  pass show openai | authsome login openai --stdin        reads it from a pipe
  authsome login openai --from-env MY_KEY                 takes it from a variable
  authsome login github --connection work                 a second account")]
pub struct Login {
    /// Provider to connect (`authsome list --all` shows them)
    provider: String,
    /// Name of this connection
    #[arg(long, value_name = "NAME", default_value = ConnectionName::DEFAULT)]
    connection: ConnectionName,
    /// How to obtain the credential, if not as the provider says
    #[arg(long, value_name = "FLOW", value_parser = ["api_key", "pkce", "device_code", "dcr_pkce"])]
    flow: Option<String>,
    /// OAuth scopes to ask for
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    scopes: Vec<String>,
    /// Address of your own installation of the service
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Read the credential from stdin; several fields as a JSON object
    #[arg(long, conflicts_with = "from_env")]
    stdin: bool,
    /// Take the credential from this variable
    #[arg(long, value_name = "VAR")]
    from_env: Option<String>,
    /// Replace the connection if it exists
    #[arg(long)]
    force: bool,
}

impl Login {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let vault = context.vault()?;
        let provider = context::find(&context.catalog()?, &self.provider, self.base_url.as_deref())?;
        self.check_options(&provider)?;
        // Before the key is asked for: nobody likes to paste one for nothing.
        if !self.force && vault.of(&provider.name)?.contains(&self.connection) {
            return Err(VaultError::Exists { provider: provider.name, connection: self.connection }.into());
        }
        let fields = api_key::collect(&provider, &self.input(&provider, context), &variable)?;
        let record = Record::of_keys(provider.name.clone(), self.connection.clone(), self.base_url, fields);
        vault.store(&record, self.force)?;
        let (name, connection) = (provider.name.as_str(), self.connection.as_str());
        let document = json!({"status": "success", "provider": name, "connection": connection, "record_status": "connected"});
        context.out.done(&document, &format!("Connected {} as {name}/{connection}.", provider.display_name))?;
        Ok(0)
    }

    fn check_options(&self, provider: &Provider) -> Result<(), Failure> {
        // A token that was made by hand goes in as a key does, also where the usual way is OAuth.
        let handed = (self.stdin || self.from_env.is_some()) && provider.takes_key();
        let flow = self.flow.as_deref().unwrap_or(if handed { "api_key" } else { &provider.flow });
        if flow != "api_key" || !provider.takes_key() {
            return Err(LoginError::FlowUnsupported { provider: provider.name.to_string(), flow: flow.to_owned() }.into());
        }
        if !self.scopes.is_empty() {
            return Err(Failure::Usage("--scopes is for OAuth; an API key has the rights it was made with".to_owned()));
        }
        if self.base_url.is_some() && !provider.needs_base_url() {
            return Err(Failure::Usage(format!("--base-url: the definition of {} has no place for it", provider.name)));
        }
        if self.base_url.is_none() && provider.needs_base_url() && provider.api_urls.is_empty() {
            return Err(Failure::Usage(format!("{} is installed at many places: name yours with --base-url", provider.name)));
        }
        Ok(())
    }

    fn input(&self, provider: &Provider, context: &Context) -> Input {
        if self.stdin {
            return Input::Stdin;
        }
        if let Some(name) = &self.from_env {
            return Input::Variable(name.clone());
        }
        match provider.env_var.as_ref().filter(|name| variable(name).is_some_and(|value| !value.is_empty())) {
            Some(name) => {
                context.out.say(&format!("Taking the key from the variable {name}."));
                Input::Variable(name.clone())
            }
            None => Input::Terminal,
        }
    }
}
