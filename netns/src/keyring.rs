//! Session keyrings of the kernel (session-keyring(7)).

use std::io;

/// Replaces the calling process's session keyring by a new, empty, anonymous one. Children inherit it.
pub fn join_new_session() -> io::Result<()> {
    crate::sys::join_new_session_keyring()
}
