use serde_json::json;

use crate::{
    cli::{context::Context, report::Failure},
    run::ca,
};

/// Print where its certificate is
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  curl --cacert \"$(authsome ca path)\" …")]
pub struct Path {}

impl Path {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        super::open(context)?;
        let (path, out) = (ca::certificate_path(&context.config.home), context.out);
        match out.json {
            true => out.document(&json!({"path": path}))?,
            false => out.data(&format!("{}\n", path.display()))?,
        }
        Ok(0)
    }
}
