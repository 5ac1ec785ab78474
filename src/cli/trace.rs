//! `--log-file` and `-vv`: what engineers want to see.
use super::{args::Global, report::Failure};
use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt};
use tracing_subscriber::{filter::LevelFilter, fmt};

/// Sets the process's subscriber where one of the flags asks for it; otherwise tracing costs nothing.
pub fn start(global: &Global) -> Result<(), Failure> {
    let level = if global.verbose > 2 { LevelFilter::TRACE } else { LevelFilter::DEBUG };
    if let Some(path) = &global.log_file {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|source| Failure::File { action: "open", path: path.clone(), source })?;
        fmt().with_max_level(level).with_ansi(false).with_writer(file).init();
    } else if global.verbose > 1 {
        fmt().with_max_level(level).with_writer(std::io::stderr).init();
    }
    Ok(())
}
