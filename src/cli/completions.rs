//! `authsome completions` and `authsome man`
use super::{args::Cli, output::Output, report::Failure};
use clap::CommandFactory;
use serde_json::json;

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome completions bash > ~/.local/share/bash-completion/completions/authsome
  authsome completions fish > ~/.config/fish/completions/authsome.fish")]
pub struct Completions {
    shell: clap_complete::Shell,
}

/// Print the manual page
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  authsome man | man -l -")]
pub struct Man {}

impl Completions {
    pub fn run(self, out: Output) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "authsome", &mut script);
        let script = String::from_utf8_lossy(&script);
        if out.json {
            out.document(&json!({"shell": self.shell.to_string(), "script": script}))?;
        } else {
            out.data(&script)?;
        }
        Ok(0)
    }
}

impl Man {
    pub fn run(self, out: Output) -> Result<u8, Failure> {
        let page = page()?;
        if out.json {
            out.document(&json!({"page": page}))?;
        } else {
            out.data(&page)?;
        }
        Ok(0)
    }
}

/// The command's own page, then each command's options: one page holds everything.
fn page() -> Result<String, Failure> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).manual("authsome").render(&mut page).map_err(Failure::Output)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        page.extend(format!(".SH \"AUTHSOME {}\"\n", sub.get_name().to_uppercase()).bytes());
        let man = clap_mangen::Man::new(sub.clone());
        man.render_description_section(&mut page).map_err(Failure::Output)?;
        man.render_options_section(&mut page).map_err(Failure::Output)?;
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}
