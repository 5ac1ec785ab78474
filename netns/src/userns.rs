//! Whether this machine lets this user have a sandbox, and if not, which gate is closed.
use crate::{ruleset::Ruleset, spawn::Namespaces};

/// A gate of the kernel or the distribution that is closed, with what was tried and seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gate {
    #[error("placeholder")]
    Placeholder,
}

impl Gate {
    /// The exact command that opens it, where one exists.
    pub fn opens_with(&self) -> Option<String> {
        todo!()
    }
}

/// Tries everything a sandbox needs in a throw-away child: namespaces, maps, `lo` up, `rules` loaded, a fresh /proc mounted, a file bound over another.
pub fn probe(_namespaces: Namespaces, _rules: &Ruleset) -> Result<(), Gate> {
    todo!()
}
