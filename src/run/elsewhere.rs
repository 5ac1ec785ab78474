//! `authsome run --transparent` where there are no network namespaces: it is refused.

use super::{RunError, options::RunOptions};
use crate::config::Config;

pub fn transparent(_: &RunOptions, _: &Config) -> Result<u8, RunError> {
    Err(RunError::LinuxOnly("--transparent"))
}

/// Only a transparent run changes anything of the host.
pub fn sweep() -> Result<(), netns::Error> {
    Ok(())
}
