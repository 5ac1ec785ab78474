//! sys
#![allow(unsafe_code)]

use std::{io, ptr};

/// KEYCTL_JOIN_SESSION_KEYRING (keyctl(2), include/uapi/linux/keyctl.h) with a null name: a new, anonymous keyring.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the arguments are a command number and a null pointer, which this command takes for "no name".
    match unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
