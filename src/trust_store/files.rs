//! A certificate in a file of its own.

use std::{fs, io, path::Path};

use super::{Error, Fingerprint, State};

pub fn state(path: &Path, sha256: &Fingerprint) -> Result<State, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::Absent),
        Err(error) => Err(Error::file("read", path)(error)),
        Ok(bytes) if Fingerprint::of_pem(&bytes).as_ref() == Some(sha256) => Ok(State::Installed),
        Ok(_) => Ok(State::Other),
    }
}
