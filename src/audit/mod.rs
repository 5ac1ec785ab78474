//! The owner's trail: exactly one JSON line per request or relayed connection.
//!
//! [`Log`] starts a [`Guard`] for each, whose drop writes its [`Record`]; [`Trail`] reads them back.

mod guard;
mod log;
pub(crate) mod read;
mod record;
#[cfg(test)]
mod tests;

pub use self::{
    guard::Guard,
    log::Log,
    read::{Follow, Trail},
    record::{Blame, Record, Verdict},
};
