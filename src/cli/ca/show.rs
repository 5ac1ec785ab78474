use serde_json::json;

use crate::{
    certificate::{fingerprint, validity},
    cli::{context::Context, report::Failure},
    run::ca,
};

/// Show its name, fingerprints and dates
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome ca show")]
pub struct Show {}

impl Show {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let authority = super::open(context)?;
        let (path, out) = (ca::certificate_path(&context.config.home), context.out);
        let (name, certificate) = (authority.common_name(), authority.certificate_der());
        let (sha256, sha1) = (fingerprint::sha256(certificate), fingerprint::sha1(certificate));
        let [not_before, not_after] = validity(certificate).ok_or_else(|| ca::CaError::Foreign { path: path.clone() })?;
        if out.json {
            out.document(&json!({
                "subject": name, "sha256": sha256, "sha1": sha1, "not_before": not_before, "not_after": not_after, "path": path,
            }))?;
        } else {
            out.data(&format!(
                "subject     CN = {name}\nsha256      {sha256}\nsha1        {sha1}\nnot before  {not_before}\nnot after   {not_after}\npath        {}\n",
                path.display()
            ))?;
        }
        Ok(0)
    }
}
