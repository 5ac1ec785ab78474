use serde_json::json;

use crate::{
    cli::{context::Context, report::Failure},
    run::ca,
};

/// Show its name and fingerprint
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome ca show")]
pub struct Show {}

impl Show {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let authority = super::open(context)?;
        let (path, out) = (ca::certificate_path(&context.config.home), context.out);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, authority.certificate_der());
        let octets: Vec<_> = digest.as_ref().iter().map(|octet| format!("{octet:02X}")).collect();
        let (name, fingerprint) = (authority.common_name(), octets.join(":"));
        match out.json {
            true => out.document(&json!({"subject": name, "sha256": fingerprint, "path": path}))?,
            false => out.data(&format!("subject  CN = {name}\nsha256   {fingerprint}\npath     {}\n", path.display()))?,
        }
        Ok(0)
    }
}
