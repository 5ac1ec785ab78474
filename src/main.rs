//! The `authsome` command.
use std::process::ExitCode;

fn main() -> ExitCode {
    authsome::cli::main(std::env::args_os())
}
