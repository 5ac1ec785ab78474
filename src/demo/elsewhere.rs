//! The stage where there are no namespaces to build it of.

use super::{DemoError, Evidence};

pub fn run() -> Result<Evidence, DemoError> {
    Err(DemoError::LinuxOnly)
}
