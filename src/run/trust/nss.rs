//! The user's NSS database, for browsers that read it and heed no policies, as Electron's and those that Playwright and Puppeteer bring along.
//!
//! What is seen in its place is a copy: what the run adds to it, and whatever a browser changes, ends with the run.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{super::mask::mount, LeftAlone};
use crate::{
    run::identity::Identity,
    trust_store::{self, Step},
};

/// Where Chromium and its kin have it, below the user's home.
const DATABASE: &str = ".pki/nssdb";
const FILES: [&str; 2] = ["cert9.db", "key4.db"];
/// Names libraries, which whoever opens the database loads.
const MODULES: &str = "pkcs11.txt";
/// Where there are browsers that may not have been started yet, and would make the database when they are.
const BROWSERS: [&str; 2] = [".cache/ms-playwright", ".cache/puppeteer"];
/// Far above any database of a user's certificates, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// A copy that does not know the authority yet.
pub struct Database {
    directory: PathBuf,
    steps: Vec<Step>,
    modules: Option<Vec<u8>>,
}

/// Covers the database by a copy of it. `None`: there is no such browser, or no program to tell it of the authority.
pub fn cover(identity: &Identity, authority_file: &Path, common_name: &str) -> Result<Option<Database>, LeftAlone> {
    let directory = identity.home.join(DATABASE);
    let may_be_used = directory.is_dir() || BROWSERS.iter().any(|browser| identity.home.join(browser).is_dir());
    if !may_be_used || !trust_store::can_write_nss() {
        return Ok(None);
    }
    let modules = copy(identity, &directory).map_err(|reason| LeftAlone { path: directory.clone(), reason })?;
    let steps = trust_store::nss_steps(&directory, authority_file, common_name);
    Ok(Some(Database { directory, steps, modules }))
}

/// Returns what is to be added last.
fn copy(identity: &Identity, directory: &Path) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> {
    Step::Directory { path: directory.to_owned() }.carry_out()?;
    // A link would have something else covered.
    if identity.home.canonicalize()?.join(DATABASE) != directory.canonicalize()? {
        return Err("it is reached by a link".into());
    }
    let files = FILES.map(|name| (name, read(&directory.join(name))));
    let modules = read(&directory.join(MODULES))?;
    mount::private_tmpfs(directory, identity.uid, identity.gid)?;
    for (name, bytes) in files {
        if let Some(bytes) = bytes? {
            fs::write(directory.join(name), bytes)?;
        }
    }
    Ok(modules)
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // A pipe of that name would be waited for.
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

impl Database {
    /// Adds the authority. A program parses files of the user's for that, so it is for a process with the command's rights alone; and none of the
    /// user's libraries is loaded.
    pub fn extend(self) -> Result<(), LeftAlone> {
        let added = self.steps.iter().try_for_each(Step::carry_out).map_err(Into::into);
        let restored = self.modules.map_or(Ok(()), |modules| fs::write(self.directory.join(MODULES), modules)).map_err(Into::into);
        added.and(restored).map_err(|reason| LeftAlone { path: self.directory, reason })
    }
}
