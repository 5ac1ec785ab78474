//! Bundled definitions and those of `AUTHSOME_HOME/providers/`, found by name and parsed when asked for.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Provider, ProviderError, ProviderName, Source};

// `BUNDLED: &[(&str, &str)]`, name and text of every file in `providers/`, sorted.
include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// A definition is a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// Serializes those who write.
const LOCK: &str = ".lock";

/// Prefix of files under way.
const TEMPORARY: &str = ".new-";

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
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(write)?;
        let _lock = self.lock().map_err(write)?;
        if !force && (path.exists() || self.is_bundled(&provider.name)) {
            return Err(ProviderError::Exists(provider.name));
        }
        // Made with mode 0600, in the same directory, so that the rename is atomic.
        let mut temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.directory).map_err(write)?;
        temporary.write_all(text.as_bytes()).and_then(|()| temporary.as_file().sync_all()).map_err(write)?;
        temporary.persist(&path).map_err(|error| write(error.error))?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(write)?;
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

    /// Held until the file is dropped (flock(2)). Whoever has it finds nothing that a killed process left half written.
    fn lock(&self) -> io::Result<File> {
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(self.directory.join(LOCK))?;
        lock.lock()?;
        for entry in fs::read_dir(&self.directory)?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(lock)
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

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, thread};

    use super::*;

    const ACME: &str = r#"{"name": "acme", "auth_type": "api_key", "api_url": "api.acme.test", "x-kept": 1}"#;

    fn name(text: &str) -> ProviderName {
        text.parse().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_registered_definition_is_private_and_found() {
        let home = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(home.path()).unwrap();
        assert!(catalog.find(&name("acme"), None).unwrap().is_none());
        assert_eq!(catalog.register(ACME, "acme.json".as_ref(), false).unwrap(), name("acme"));
        let path = home.path().join("providers/acme.json");
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let provider = catalog.find(&name("acme"), None).unwrap().unwrap();
        assert_eq!((provider.source, &provider.document["x-kept"]), (Source::File(path), &1.into()));
        assert_eq!(catalog.custom_names(), [name("acme")]);
        assert!(catalog.remove(&name("acme")).unwrap() && !catalog.remove(&name("acme")).unwrap());
    }

    #[test]
    fn one_of_many_that_register_a_name_wins() {
        let home = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(home.path()).unwrap();
        let register = || catalog.register(ACME, "acme.json".as_ref(), false);
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(register)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(results.iter().flat_map(|result| result.as_ref().err()).all(|error| matches!(error, ProviderError::Exists(_))));
        let mut left: Vec<_> = fs::read_dir(home.path().join("providers")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".lock", "acme.json"]);
    }

    #[test]
    fn a_taken_name_needs_force_and_wrong_text_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(home.path()).unwrap();
        let openai = ACME.replace("\"acme\"", "\"openai\"");
        assert!(matches!(catalog.register(&openai, "f".as_ref(), false), Err(ProviderError::Exists(_))), "bundled");
        catalog.register(&openai, "f".as_ref(), true).unwrap();
        assert!(catalog.register("{", "f".as_ref(), true).unwrap_err().to_string().starts_with("f: JSON: "));
        let ours = catalog.find(&name("openai"), None).unwrap().unwrap();
        assert_eq!(ours.api_urls[0].to_string(), "https://api.acme.test", "the user's own rules over the bundled one");
        assert!(catalog.remove(&name("openai")).unwrap());
        assert_eq!(catalog.find(&name("openai"), None).unwrap().unwrap().source, Source::Bundled);
    }

    #[test]
    fn a_broken_file_is_in_nobodys_way_but_its_own() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("providers");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("broken.json"), "{").unwrap();
        fs::write(directory.join("other.json"), ACME).unwrap();
        let catalog = Catalog::open(home.path()).unwrap();
        assert!(catalog.names().contains(&name("broken")) && catalog.find(&name("openai"), None).unwrap().is_some());
        let broken = catalog.find(&name("broken"), None).map(drop).unwrap_err().to_string();
        assert!(broken.contains("broken.json: JSON: "), "{broken}");
        let misnamed = catalog.find(&name("other"), None).map(drop).unwrap_err().to_string();
        assert!(misnamed.ends_with("other.json: name: `acme` in a file for `other`"), "{misnamed}");
    }
}
