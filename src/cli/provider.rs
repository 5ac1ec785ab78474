//! `authsome provider …`, `register` and `remove`
use super::{conflicts, context::Context, inspect::Inspect, list::List, logout::Revoke, report::Failure};
use crate::provider::{Provider as Definition, ProviderName, Source};
use serde_json::json;
use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Read},
    path::{Path, PathBuf},
};

/// Manage provider definitions
#[derive(Debug, clap::Subcommand)]
pub enum Provider {
    List(ProviderList),
    Register(Register),
    Remove(Remove),
    Check(Check),
    Inspect(Inspect),
    Revoke(Revoke),
}

/// Show every provider there is
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome provider list")]
pub struct ProviderList {}

/// Add a definition, or one that overrides a bundled one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome provider check acme.json           first see what it would match
  authsome provider register acme.json
  authsome provider register acme.json --force")]
pub struct Register {
    file: PathBuf,
    /// Replace the definition of the same name, without asking
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Remove a definition of your own; a bundled one of that name is in force again
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome provider remove acme")]
pub struct Remove {
    name: String,
}

/// Check a definition and show what it would match
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome provider check acme.json")]
pub struct Check {
    file: PathBuf,
}

/// Far more than any definition; a wrong file ends here.
const MAX_FILE: u64 = 1 << 20;

impl Provider {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::List(_) => List { all: true }.run(context),
            Self::Register(command) => command.run(context),
            Self::Remove(command) => command.run(context),
            Self::Check(command) => command.run(context),
            Self::Inspect(command) => command.run(context),
            Self::Revoke(command) => command.run(context),
        }
    }
}

impl Register {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        context.outside_run()?;
        let text = read(&self.file)?;
        let definition = Definition::parse(&text, Source::File(self.file.clone()), None)?;
        if !self.yes && !self.force && io::stdin().is_terminal() {
            context.out.warn(&format!("{} will receive the credentials you store for {}.", urls(&definition), definition.name));
            confirm()?;
        }
        let name = context.catalog()?.register(&text, &self.file, self.force)?;
        context.out.done(&json!({"status": "registered", "provider": name.as_str()}), &format!("Registered {name}."))?;
        Ok(0)
    }
}

impl Remove {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let vault = context.vault()?;
        let catalog = context.catalog()?;
        let unknown = || Failure::UnknownProvider { name: self.name.clone(), nearest: None };
        let name: ProviderName = self.name.parse().map_err(|_| unknown())?;
        if !catalog.remove(&name)? {
            return Err(if catalog.names().contains(&name) { Failure::BundledProvider(name) } else { unknown() });
        }
        let left = vault.of(&name)?;
        if !left.is_empty() && !catalog.names().contains(&name) {
            context.out.warn(&format!("{name} still has {} connection(s); `authsome revoke {name}` removes them", left.len()));
        }
        context.out.done(&json!({"status": "removed", "provider": name.as_str()}), &format!("Removed the definition of {name}."))?;
        Ok(0)
    }
}

impl Check {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let definition = Definition::parse(&read(&self.file)?, Source::File(self.file.clone()), None)?;
        let conflicts = conflicts::of(context, &definition)?;
        let matches: Vec<_> = definition.api_urls.iter().map(ToString::to_string).collect();
        if context.out.json {
            context.out.document(&json!({"name": definition.name.as_str(), "matches": matches, "conflicts": conflicts}))?;
        } else {
            let lines =
                matches.iter().map(|url| format!("matches    {url}\n")).chain(conflicts.iter().map(|text| format!("conflict   {text}\n")));
            context.out.data(&format!("provider   {}\n{}", definition.name, lines.collect::<String>()))?;
        }
        Ok(0)
    }
}

fn urls(definition: &Definition) -> String {
    definition.api_urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |source| Failure::File { action: "read", path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text)).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}

fn confirm() -> Result<(), Failure> {
    let _ = io::Write::write_all(&mut io::stderr(), b"Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(crate::login::LoginError::Read)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(crate::login::LoginError::Cancelled.into()),
    }
}
