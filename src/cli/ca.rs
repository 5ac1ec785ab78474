//! `authsome ca`
use super::{context::Context, report::Failure};
use crate::run::ca;
use clap::ValueEnum;
use serde_json::json;
use std::path::PathBuf;

/// The certificate authority of `authsome run` without --transparent
#[derive(Debug, clap::Subcommand)]
pub enum Ca {
    /// Print where its certificate is
    #[command(after_help = "Example:
  curl --cacert \"$(authsome ca path)\" …")]
    Path,
    /// Show its name and fingerprint
    #[command(after_help = "Example:
  authsome ca show")]
    Show,
    /// Write out its certificate
    #[command(after_help = "Examples:
  authsome ca export > authsome-ca.pem
  authsome ca export --format der -o authsome-ca.der")]
    Export(Export),
}

#[derive(Debug, clap::Args)]
pub struct Export {
    #[arg(long, value_enum, default_value_t = Format::Pem)]
    format: Format,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Pem,
    Der,
}

impl Ca {
    /// The authority is made if there is none yet.
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let home = &context.config.home;
        crate::vault::create_home(home)?;
        let authority = ca::open(home)?;
        let (path, out) = (ca::certificate_path(home), context.out);
        match self {
            Self::Path if out.json => out.document(&json!({"path": path}))?,
            Self::Path => out.data(&format!("{}\n", path.display()))?,
            Self::Show => {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, authority.certificate_der());
                let octets: Vec<_> = digest.as_ref().iter().map(|octet| format!("{octet:02X}")).collect();
                let (name, fingerprint) = (authority.common_name(), octets.join(":"));
                match out.json {
                    true => out.document(&json!({"subject": name, "sha256": fingerprint, "path": path}))?,
                    false => out.data(&format!("subject  CN = {name}\nsha256   {fingerprint}\npath     {}\n", path.display()))?,
                }
            }
            Self::Export(Export { format, output }) => {
                let bytes = match format {
                    Format::Pem => authority.certificate_pem().as_bytes(),
                    Format::Der => authority.certificate_der(),
                };
                match (output, format) {
                    (Some(path), _) => {
                        let failed = |source| Failure::File { action: "write", path: path.clone(), source };
                        std::fs::write(&path, bytes).map_err(failed)?;
                        out.done(&json!({"path": path}), &format!("wrote {}", path.display()))?;
                    }
                    (None, Format::Pem) if out.json => out.document(&json!({"pem": authority.certificate_pem()}))?,
                    (None, Format::Pem) => out.data(authority.certificate_pem())?,
                    (None, Format::Der) => return Err(Failure::Usage("--format der is binary: name a file with -o".to_owned())),
                }
            }
        }
        Ok(0)
    }
}
