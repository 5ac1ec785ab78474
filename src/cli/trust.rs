//! `authsome trust`
use super::{context::Context, export, report::Failure};
use crate::{
    run::{
        RunError, ca,
        trust::{Authority, Trust},
    },
    vault,
};
use serde_json::{Map, Value};
use std::{env, path::Path};

/// Trust in the persistent authority for programs that are told by variables
#[derive(Debug, clap::Subcommand)]
pub enum TrustCommand {
    Env(Env),
}

/// Print the variables that make programs trust it
///
/// They name files below AUTHSOME_HOME/ca/trust with the roots that this shell trusts already and the authority's certificate. Each call
/// writes them anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  eval \"$(authsome trust env)\"     into this shell
  authsome trust env --json        {\"SSL_CERT_FILE\": \"…\", …}")]
pub struct Env {}

impl TrustCommand {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let Self::Env(Env {}) = self;
        context.outside_run()?;
        let home = &context.config.home;
        vault::create_home(home)?;
        let authority = ca::open(home)?;
        let certificate = ca::certificate_path(home);
        let directory = certificate.parent().unwrap_or(home);
        // What an earlier call said is no wish of the user's.
        let of_user = |name: &str| env::var_os(name).filter(|value| !Path::new(value).starts_with(directory));
        let authority = Authority { pem: authority.certificate_pem(), common_name: authority.common_name() };
        let trust = Trust::write(directory, authority, &of_user).map_err(RunError::Trust)?;
        let variables = trust.variables().iter().map(|(name, value)| match value.to_str() {
            Some(value) => Ok((*name, value)),
            None => Err(Failure::Usage(format!("{name} would name {}, which is not text", Path::new(value).display()))),
        });
        let variables = variables.collect::<Result<Vec<_>, _>>()?;
        if context.out.json {
            context
                .out
                .document(&Value::Object(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect::<Map<_, _>>()))?;
        } else {
            let mut text = String::new();
            variables.iter().for_each(|(name, value)| export::env(&mut text, name, value));
            context.out.data(&text)?;
        }
        Ok(0)
    }
}
