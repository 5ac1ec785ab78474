use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    cli::{
        context::{Context, variable},
        report::Failure,
    },
    config::HOME_VARIABLE,
    run::identity::Identity,
    trust_store::{self, Entry, Journal, Machine, Scope, State, Step, Store},
};

/// Put its certificate into the stores of roots on this machine
///
/// With neither flag: into the user's stores and, called with sudo, the system's too. Every step is shown before it is done, and `ca uninstall`
/// undoes exactly those.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome ca install --dry-run          what it would do
  authsome ca install                    browsers of this user
  sudo authsome ca install --system      every program of this machine")]
pub struct Install {
    #[command(flatten)]
    pub scopes: Scopes,
    /// Show the steps and do none
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Scopes {
    /// Only stores of this user: browsers, the login keychain
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// Only stores of the whole system, which needs root
    #[arg(long)]
    system: bool,
}

impl Scopes {
    pub fn includes(self, scope: Scope) -> bool {
        match scope {
            Scope::System => !self.user,
            Scope::User => !self.system,
        }
    }
}

/// This command and where its records go: root's rights for the system's stores, then the user's for good.
pub struct Session<'a> {
    pub context: &'a Context,
    pub identity: Identity,
    pub journal: Journal,
    pub done: Vec<Value>,
}

impl<'a> Session<'a> {
    pub fn start(context: &'a Context, identity: Identity) -> Result<Self, Failure> {
        context.outside_run()?;
        let journal = identity.acting(|| {
            crate::vault::create_home(&context.config.home)?;
            Ok::<_, Failure>(Journal::open(&context.config.home)?)
        })??;
        Ok(Self { context, identity, journal, done: Vec::new() })
    }

    /// Files of the user's are touched with the user's rights only.
    pub fn become_user(&mut self) -> Result<(), Failure> {
        self.identity.assume().map_err(|errno| crate::run::RunError::System("become the invoking user", errno))?;
        self.identity.groups = None;
        Ok(())
    }

    pub fn record(&mut self, change: impl FnOnce(&mut Journal) -> Result<(), trust_store::Error>) -> Result<(), Failure> {
        let Self { identity, journal, .. } = self;
        Ok(identity.acting(|| change(journal))??)
    }

    pub fn show(&self, steps: &[Step]) -> Result<(), Failure> {
        steps.iter().for_each(|step| self.context.out.say(&format!("  {step}")));
        Ok(())
    }

    pub fn note(&mut self, store: &str, path: &std::path::Path, outcome: &str) {
        self.context.out.say(&format!("{}: {outcome}", path.display()));
        self.done.push(json!({"store": store, "path": path, "outcome": outcome}));
    }

    /// The document, for programs.
    pub fn finish(self) -> Result<u8, Failure> {
        if self.context.out.json {
            self.context.out.document(&json!({"stores": self.done}))?;
        }
        Ok(0)
    }
}

/// Fails unless this process is root; `arguments` are what it is to be called with then.
pub fn require_root(arguments: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("authsome"));
    // sudo clears the environment.
    let home = variable(HOME_VARIABLE).map_or_else(String::new, |home| format!("{HOME_VARIABLE}={} ", quoted(&home)));
    Err(Failure::NeedsRoot { command: format!("sudo {home}{} ca {arguments}", quoted(&program.to_string_lossy())) })
}

impl Install {
    pub fn run(self, context: &Context, identity: Identity) -> Result<u8, Failure> {
        let machine = Machine::here(&identity.home);
        let root = nix::unistd::geteuid().is_root();
        let wanted = |store: &Store| self.scopes.includes(store.scope) && (root || self.scopes.system || store.scope == Scope::User);
        let stores: Vec<_> = machine.stores().into_iter().filter(wanted).collect();
        if stores.is_empty() {
            return Err(Failure::NoStore);
        }
        if self.scopes.system && !self.dry_run {
            require_root("install --system")?;
        }
        let mut session = Session::start(context, identity)?;
        let certificate = session.identity.acting(|| super::certificate(context))??;
        let mut missing = Vec::new();
        for store in &stores {
            if store.scope == Scope::User {
                session.become_user()?;
            }
            let entry = Entry::new(store, &certificate);
            match store.state(&entry)? {
                State::Installed => session.note(store.name, &store.path, "installed already"),
                State::Other => return Err(trust_store::Error::Other { path: store.path.clone() }.into()),
                State::ToolMissing(tool) => {
                    session.note(store.name, &store.path, &format!("left as it is: {tool} is missing"));
                    missing.push(tool);
                }
                State::Absent => {
                    let steps = store.install(&certificate)?;
                    if self.dry_run {
                        context.out.data(&steps.iter().map(|step| format!("{step}\n")).collect::<String>())?;
                        continue;
                    }
                    session.show(&steps)?;
                    session.record(|journal| journal.add(entry.clone()))?;
                    if let Err(error) = trust_store::carry_out(&steps) {
                        session.record(|journal| journal.remove(&entry))?;
                        return Err(error.into());
                    }
                    session.note(store.name, &store.path, "installed");
                }
            }
        }
        // Where another store took it, the line about this one is enough.
        if let [tool, others @ ..] = &missing[..]
            && others.len() + 1 == stores.len()
        {
            return Err(Failure::NoTool { tool, package: machine.package(tool) });
        }
        if machine.in_windows {
            let path = certificate.path.display();
            context
                .out
                .say(&format!("Programs of Windows have a store of their own: certutil.exe -addstore -user root \"$(wslpath -w {path})\""));
        }
        if !root && !self.scopes.user {
            context.out.say("The system's store is left as it is: sudo authsome ca install --system");
        }
        if self.dry_run { Ok(0) } else { session.finish() }
    }
}
