//! `authsome ca`

mod export;
mod install;
mod path;
mod show;
mod status;
mod uninstall;

use super::{context::Context, report::Failure};
use crate::{
    run::{
        ca::{self, Authority},
        identity::Identity,
    },
    trust_store::{Certificate, Fingerprint},
};

/// The certificate authority of `authsome run` without --transparent
#[derive(Debug, clap::Subcommand)]
pub enum Ca {
    Path(path::Path),
    Show(show::Show),
    Export(export::Export),
    Install(install::Install),
    Uninstall(uninstall::Uninstall),
    Status(status::Status),
}

impl Ca {
    /// Whether this may change what belongs to root.
    pub fn needs_rights(&self) -> bool {
        matches!(self, Self::Install(_) | Self::Uninstall(_))
    }

    /// `identity`: who the user is where this process still has root's rights, see [`Self::needs_rights`].
    pub fn run(self, context: &Context, identity: Identity) -> Result<u8, Failure> {
        match self {
            Self::Path(args) => args.run(context),
            Self::Show(args) => args.run(context),
            Self::Export(args) => args.run(context),
            Self::Install(args) => args.run(context, identity),
            Self::Uninstall(args) => args.run(context, identity),
            Self::Status(args) => args.run(context, &identity.home),
        }
    }
}

/// The authority, made if there is none yet.
fn open(context: &Context) -> Result<Authority, Failure> {
    let home = &context.config.home;
    crate::vault::create_home(home)?;
    Ok(ca::open(home)?)
}

/// What is installed of it.
fn certificate(context: &Context) -> Result<Certificate, Failure> {
    let authority = open(context)?;
    Ok(Certificate {
        path: ca::certificate_path(&context.config.home),
        pem: authority.certificate_pem().to_owned(),
        common_name: authority.common_name().to_owned(),
        sha256: Fingerprint::of(authority.certificate_der()),
    })
}
