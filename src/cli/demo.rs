//! `authsome demo`
use super::{output::Output, report::Failure};
use crate::demo;
use serde_json::json;

/// Show on a small internet of its own that a program uses a key it cannot find
///
/// Needs no account, no network and, where user namespaces work, no root. Nothing of this machine is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome demo")]
pub struct Demo {
    /// Play the client inside the demonstration
    #[arg(long, hide = true)]
    client: bool,
}

impl Demo {
    pub fn run(self, out: Output) -> Result<u8, Failure> {
        if self.client {
            let account = demo::client().map_err(|error| demo::DemoError::Failed(error.to_string()))?;
            out.document(&json!(account))?;
            return Ok(0);
        }
        let evidence = demo::run()?;
        if out.json {
            out.document(&json!(evidence))?;
        } else {
            out.data(&evidence.to_string())?;
        }
        if evidence.holds() { Ok(0) } else { Err(demo::DemoError::Failed("not everything that was promised was seen".to_owned()).into()) }
    }
}
