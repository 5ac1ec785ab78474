//! `authsome ca`

mod export;
mod path;
mod show;

use super::{context::Context, report::Failure};
use crate::run::ca::{self, Authority};

/// The certificate authority of `authsome run` without --transparent
#[derive(Debug, clap::Subcommand)]
pub enum Ca {
    Path(path::Path),
    Show(show::Show),
    Export(export::Export),
}

impl Ca {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Path(args) => args.run(context),
            Self::Show(args) => args.run(context),
            Self::Export(args) => args.run(context),
        }
    }
}

/// The authority, made if there is none yet.
fn open(context: &Context) -> Result<Authority, Failure> {
    let home = &context.config.home;
    crate::vault::create_home(home)?;
    Ok(ca::open(home)?)
}
