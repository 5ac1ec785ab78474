use serde_json::json;

use crate::{
    cli::{context::Context, report::Failure},
    trust_store::Certificate,
};

/// Show its name and fingerprint
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome ca show")]
pub struct Show {}

impl Show {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let Certificate { path, common_name: name, sha256: fingerprint, .. } = super::certificate(context)?;
        let out = context.out;
        match out.json {
            true => out.document(&json!({"subject": name, "sha256": fingerprint, "path": path}))?,
            false => out.data(&format!("subject  CN = {name}\nsha256   {fingerprint}\npath     {}\n", path.display()))?,
        }
        Ok(0)
    }
}
