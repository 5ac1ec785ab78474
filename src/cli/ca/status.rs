use std::path::Path;

use serde_json::json;

use crate::{
    cli::{context::Context, output, report::Failure},
    trust_store::{Entry, Journal, Machine, Scope},
};

/// Show which stores of roots on this machine have its certificate
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome ca status
  authsome ca status --json")]
pub struct Status {}

impl Status {
    pub fn run(self, context: &Context, home: &Path) -> Result<u8, Failure> {
        context.outside_run()?;
        let certificate = super::certificate(context)?;
        let journal = Journal::open(&context.config.home)?;
        let (mut rows, mut documents) = (vec![["STORE", "SCOPE", "STATE", "PLACE"].map(str::to_owned).to_vec()], Vec::new());
        for store in Machine::here(home).stores() {
            let state = store.state(&Entry::new(&store, &certificate))?.to_string();
            let scope = if store.scope == Scope::System { "system" } else { "user" };
            let by_us = journal.entries().iter().any(|entry| entry.is_of(&store));
            documents.push(json!({"store": store.name, "scope": scope, "path": store.path, "state": state, "by_authsome": by_us}));
            rows.push(vec![store.name.to_owned(), scope.to_owned(), state, store.path.display().to_string()]);
        }
        match context.out.json {
            true => context.out.document(&json!({"sha256": certificate.sha256, "stores": documents}))?,
            false => context.out.data(&output::table(&rows))?,
        }
        Ok(0)
    }
}
