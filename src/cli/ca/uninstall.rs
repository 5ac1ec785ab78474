use crate::{
    cli::{context::Context, report::Failure},
    run::identity::Identity,
    trust_store::{self, Entry, Machine, Scope, State},
};

use super::install::{Scopes, Session, require_root};

/// Take out what `ca install` put into stores of roots
///
/// Only what it put there and only where it is still the same certificate; anything else is left and named.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome ca uninstall
  sudo authsome ca uninstall             also from the system's store")]
pub struct Uninstall {
    #[command(flatten)]
    scopes: Scopes,
    /// Show the steps and do none
    #[arg(long)]
    dry_run: bool,
}

impl Uninstall {
    pub fn run(self, context: &Context, identity: Identity) -> Result<u8, Failure> {
        let machine = Machine::here(&identity.home);
        let mut session = Session::start(context, identity)?;
        let mut entries: Vec<Entry> = session.journal.entries().iter().filter(|entry| self.scopes.includes(entry.scope)).cloned().collect();
        // With root's rights first, since they are given up then.
        entries.sort_by_key(|entry| entry.scope);
        if entries.is_empty() {
            context.out.say("Nothing is installed.");
        }
        if entries.iter().any(|entry| entry.scope == Scope::System) && !self.dry_run {
            require_root("uninstall")?;
        }
        // The journal is the user's file: root acts on no path of it that this system's own table does not have.
        let stores = machine.stores();
        let mut missing = None;
        for entry in entries {
            if entry.scope == Scope::User {
                session.become_user()?;
            }
            let store = stores.iter().find(|store| entry.is_of(store));
            let state = store.map(|store| store.state(&entry)).transpose()?;
            match (store, state) {
                (Some(store), Some(State::Installed)) => {
                    let steps = store.uninstall(&entry)?;
                    if self.dry_run {
                        context.out.data(&steps.iter().map(|step| format!("{step}\n")).collect::<String>())?;
                        continue;
                    }
                    session.show(&steps)?;
                    trust_store::carry_out(&steps)?;
                    session.note(&entry.store, &entry.path, "removed");
                }
                (Some(_), Some(State::ToolMissing(tool))) => {
                    session.note(&entry.store, &entry.path, &format!("left as it is: {tool} is missing"));
                    missing = Some(tool);
                    continue;
                }
                (Some(_), Some(State::Other)) => session.note(&entry.store, &entry.path, "left as it is: it holds another certificate"),
                (Some(_), _) => session.note(&entry.store, &entry.path, "was gone already"),
                (None, _) => session.note(&entry.store, &entry.path, "left as it is: no store of this system"),
            }
            if !self.dry_run {
                session.record(|journal| journal.remove(&entry))?;
            }
        }
        match missing {
            Some(tool) => Err(Failure::NoTool { tool, package: machine.package(tool) }),
            None if self.dry_run => Ok(0),
            None => session.finish(),
        }
    }
}
