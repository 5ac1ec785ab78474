//! `authsome inspect`
use super::{
    conflicts,
    context::{self, Context},
    report::Failure,
    status,
};
use serde_json::{Map, Value, json};

/// Show a provider's definition, where it came from, and its connections with the secrets redacted
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome inspect openai
  authsome inspect openai | grep api_url")]
pub struct Inspect {
    provider: String,
}

impl Inspect {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let vault = context.vault()?;
        let provider = context::find(&context.catalog()?, &self.provider, None)?;
        let mut document = match &provider.document {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        let connections: Vec<_> =
            status::all(&vault, &provider.name)?.iter().map(|status| Value::from(status.details(Some(&provider)))).collect();
        document.insert("source".to_owned(), json!(provider.source.to_string()));
        document.insert("conflicts".to_owned(), json!(conflicts::of(context, &provider)?));
        document.insert("connections".to_owned(), json!(connections));
        context.out.document(&document.into())?;
        Ok(0)
    }
}
