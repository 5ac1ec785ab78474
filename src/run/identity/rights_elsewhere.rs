//! Rights where root's cannot be given up whole: the system has no safe call that sets a process's groups, so nobody is root to begin with.

use super::{Identity, RunError};

impl Identity {
    pub(super) fn of_root(_: Option<&str>, _: &dyn Fn(&str) -> Option<String>) -> Result<Self, RunError> {
        Err(RunError::RootUnsupported)
    }

    /// This process is that user already, as in every function below.
    pub fn assume(&self) -> nix::Result<()> {
        Ok(())
    }

    pub fn acting<T>(&self, work: impl FnOnce() -> T) -> Result<T, RunError> {
        Ok(work())
    }

    pub fn assume_keeping(&self, _undo: bool) -> Result<(), RunError> {
        Ok(())
    }
}
