use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use crate::cli::{context::Context, report::Failure};

/// Write out its certificate
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome ca export > authsome-ca.pem
  authsome ca export --format der -o authsome-ca.der")]
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

impl Export {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let authority = super::open(context)?;
        let (Self { format, output }, out) = (self, context.out);
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
        Ok(0)
    }
}
