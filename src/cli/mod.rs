//! The command line: what was typed becomes one call of a room, and what comes of it becomes words and an exit code.

mod args;
mod ca;
mod completions;
mod conflicts;
mod connections;
mod context;
mod demo;
mod doctor;
mod export;
mod inspect;
mod list;
mod log;
mod login;
mod logout;
mod output;
mod policy;
mod provider;
mod report;
mod run;
mod scan;
mod status;
mod trace;
mod trust;

use crate::{
    config::Config,
    run::{RunError, identity::Identity, sweep as undo_killed_runs},
};
use args::{Cli, Command};
use clap::Parser;
use context::{Context, variable};
use nix::unistd::geteuid;
use output::Output;
use report::Failure;
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::ExitCode,
};

/// The whole program. Starts no thread and reads no file before the command line is understood.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.collect();
    let flag =
        |name: &str| arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument.as_os_str() == OsStr::new(name));
    if flag("--no-color") {
        anstream::ColorChoice::Never.write_global();
    }
    let json = flag("--json");
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error, json).into(),
    };
    let out = Output { json: cli.global.json, verbosity: if cli.global.quiet { 0 } else { cli.global.verbose.saturating_add(1) } };
    match start(cli, out) {
        Ok(code) => code.into(),
        Err(failure) => report::tell(&failure, out).into(),
    }
}

fn start(cli: Cli, out: Output) -> Result<u8, Failure> {
    let identity = identity(&cli.command)?;
    let load = || {
        trace::start(&cli.global)?;
        Ok::<_, Failure>(Context { out, config: Config::load(&variable, Some(identity.home.clone()))? })
    };
    // Everything but a run needs no right of root's, so none is kept. Before it goes, what a killed run left on the host is undone.
    let sweep = || {
        if let Err(error) = undo_killed_runs() {
            out.warn(&format!("undo what a killed run left: {error}"));
        }
    };
    let own = || {
        sweep();
        identity.assume().map_err(|errno| RunError::System("become the invoking user", errno))?;
        load()
    };
    match cli.command {
        Command::Run(command) => {
            let (context, policy) = identity.acting(|| Ok::<_, Failure>((load()?, command.policy()?)))??;
            command.run(context, policy)
        }
        Command::Demo(command) => command.run(out),
        Command::Doctor(command) => {
            let privileged = doctor::privileged();
            command.run(&own()?, privileged)
        }
        Command::Login(command) => command.run(&own()?),
        Command::Logout(command) => command.run(&own()?),
        Command::List(command) => command.run(&own()?),
        Command::Inspect(command) => command.run(&own()?),
        Command::Export(command) => command.run(&own()?),
        Command::Policy(command) => command.run(&own()?),
        Command::Provider(command) => command.run(&own()?),
        Command::Connections(command) => command.run(&own()?),
        Command::Ca(command) if command.needs_rights() => {
            sweep();
            let context = identity.acting(load)??;
            command.run(&context, identity)
        }
        Command::Ca(command) => {
            let context = own()?;
            command.run(&context, identity)
        }
        Command::Trust(command) => command.run(&own()?),
        Command::Log(command) => command.run(&own()?),
        Command::Scan(command) => command.run(&own()?),
        Command::Completions(command) => command.run(out),
        Command::Man(command) => command.run(out),
        Command::Whoami(command) => command.run(&own()?),
        Command::SetDefault(command) => command.run(&own()?),
        Command::Get(command) => command.run(&own()?),
        Command::Register(command) => command.run(&own()?),
        Command::Remove(command) => command.run(&own()?),
        Command::Revoke(command) => command.run(&own()?),
    }
}

/// Whose files are used: under sudo the invoking user's, as root by login root's own.
fn identity(command: &Command) -> Result<Identity, RunError> {
    match command {
        Command::Run(run) => Identity::resolve(run.user.as_deref(), &variable),
        _ if geteuid().is_root() && variable("SUDO_UID").is_none() => {
            let root = Identity::resolve(Some("root"), &variable)?;
            let home = std::env::var_os("HOME").map_or(root.home, PathBuf::from);
            Ok(Identity { home, groups: None, ..root })
        }
        _ => Identity::resolve(None, &variable),
    }
}
