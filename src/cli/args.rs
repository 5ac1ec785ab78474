//! The command line, as clap reads it.
use super::{ca, completions, connections, demo, doctor, export, inspect, list, log, login, logout, policy, provider, run, scan, trust};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Run programs with your API keys without giving them the keys.
#[derive(Debug, Parser)]
#[command(name = "authsome", version, max_term_width = 100, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Examples:
  authsome login openai                       store a key, asked for without echo
  authsome run --transparent -- ./agent.py    run a program that never sees it
  authsome list                               what is connected
  authsome log -f                             what the program did with it")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Print one JSON document on stdout
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Say more; repeat for more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// No colours (also: NO_COLOR)
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_color: bool,
    /// Write a debugging log to this file
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub log_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Login(login::Login),
    Logout(logout::Logout),
    List(list::List),
    Inspect(inspect::Inspect),
    Export(export::Export),
    Run(run::Run),
    #[command(subcommand)]
    Provider(provider::Provider),
    #[command(subcommand)]
    Connections(connections::Connections),
    #[command(subcommand)]
    Policy(policy::Policy),
    #[command(subcommand)]
    Ca(ca::Ca),
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    Scan(scan::Scan),
    Log(log::Log),
    Doctor(doctor::Doctor),
    Demo(demo::Demo),
    Completions(completions::Completions),
    Man(completions::Man),
    Whoami(connections::Whoami),
    SetDefault(connections::SetDefault),
    Get(connections::Get),
    Register(provider::Register),
    Remove(provider::Remove),
    Revoke(logout::Revoke),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let help = sub.clone().render_long_help().to_string();
                assert!(sub.has_subcommands() || help.contains("Example"), "{}:\n{help}", sub.get_name());
                check(sub);
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in ["authsome --json -vv list", "authsome list --json -vv", "authsome list -v --json -v"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json && cli.global.verbose == 2, "{line}");
        }
    }

    #[test]
    fn the_programs_own_flags_are_the_programs() {
        for line in ["authsome run -q -- ls -la --json", "authsome run -q ls -la --json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Run(run) = cli.command else { panic!("{line}") };
            assert_eq!(run.command, ["ls", "-la", "--json"], "{line}");
            assert!(cli.global.quiet && !cli.global.json, "{line}");
        }
        assert!(Cli::try_parse_from(["authsome", "run", "--tranparent", "ls"]).is_err(), "a slip is not taken for the program");
    }
}
