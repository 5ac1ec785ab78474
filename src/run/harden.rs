//! harden
