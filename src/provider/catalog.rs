//! Bundled definitions and those of `AUTHSOME_HOME/providers/`, found by name and parsed when asked for.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{Provider, ProviderError, ProviderName, Source};

// `BUNDLED: &[(&str, &str)]`, name and text of every file in `providers/`, sorted.
include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// A definition is a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// Bundled definitions (compiled in) and the user's own, which override by name. Nothing is parsed before it is asked for.
pub struct Catalog {
    directory: PathBuf,
}

impl Catalog {
    /// `home` is AUTHSOME_HOME; `providers/` in it need not exist.
    pub fn open(home: &Path) -> Result<Self, ProviderError> {
        Ok(Self { directory: home.join("providers") })
    }

    /// Every name, sorted.
    pub fn names(&self) -> Vec<ProviderName> {
        let bundled = BUNDLED.iter().filter_map(|(name, _)| name.parse().ok());
        bundled.chain(self.custom_names()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Those with a file of the user's own. A directory that cannot be read has none to offer; `find` then names the file.
    pub fn custom_names(&self) -> Vec<ProviderName> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok()).collect();
        names.sort();
        names
    }

    pub fn is_bundled(&self, name: &ProviderName) -> bool {
        bundled(name).is_some()
    }

    /// `None`: no such provider.
    pub fn find(&self, name: &ProviderName, base_url: Option<&str>) -> Result<Option<Provider>, ProviderError> {
        let path = self.path(name);
        match read(&path)? {
            Some(text) => {
                let provider = Provider::parse(&text, Source::File(path.clone()), base_url)?;
                if provider.name != *name {
                    return Err(ProviderError::Misnamed { path, found: provider.name, wanted: name.clone() });
                }
                Ok(Some(provider))
            }
            None => bundled(name).map(|text| Provider::parse(text, Source::Bundled, base_url)).transpose(),
        }
    }

    /// Checks a definition and stores it as the user's own; `file` is where the text came from, for errors.
    pub fn register(&self, text: &str, file: &Path, force: bool) -> Result<ProviderName, ProviderError> {
        let provider = Provider::parse(text, Source::File(file.to_owned()), None)?;
        let path = self.path(&provider.name);
        let write = |error: io::Error| ProviderError::Write { path: path.clone(), error };
        if !force && (path.exists() || self.is_bundled(&provider.name)) {
            return Err(ProviderError::Exists(provider.name));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(write)?;
        // Made with mode 0600, in the same directory, so that the rename is atomic.
        let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.directory).map_err(write)?;
        temporary.write_all(text.as_bytes()).and_then(|()| temporary.as_file().sync_all()).map_err(write)?;
        temporary.persist(&path).map_err(|error| write(error.error))?;
        fs::File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(write)?;
        Ok(provider.name)
    }

    /// Removes the user's own definition of that name; `false` if there is none.
    pub fn remove(&self, name: &ProviderName) -> Result<bool, ProviderError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(ProviderError::Write { path, error }),
        }
    }

    fn path(&self, name: &ProviderName) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }
}

fn bundled(name: &ProviderName) -> Option<&'static str> {
    let at = BUNDLED.binary_search_by_key(&name.as_str(), |(name, _)| name).ok()?;
    BUNDLED.get(at).map(|(_, text)| *text)
}

fn read(path: &Path) -> Result<Option<String>, ProviderError> {
    let failed = |error: io::Error| ProviderError::Read { path: path.to_owned(), error };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_FILE => {
            Err(failed(io::Error::other("not a definition: it is no file, or over 1 MiB")))
        }
        Ok(_) => fs::read_to_string(path).map(Some).map_err(failed),
    }
}
