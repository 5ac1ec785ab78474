//! The vault itself: where each connection's file is, and what happens to it.
use super::{ConnectionName, KeySource, Record, VaultError, file, seal};
use crate::provider::ProviderName;
use age::x25519;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// `AUTHSOME_HOME/vault`. Opening it touches no file; the key is read when the first record is.
pub struct Vault {
    dir: PathBuf,
    source: KeySource,
    key: OnceLock<x25519::Identity>,
}

const SUFFIX: &str = "age";
const DEFAULT: &str = ".default";
const LOCK: &str = ".lock";

impl Vault {
    pub fn open(home: &Path, source: KeySource) -> Self {
        Self { dir: home.join("vault"), source, key: OnceLock::new() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How messages name the key.
    pub fn key_origin(&self) -> String {
        self.source.describe(&self.dir)
    }

    /// Every connection in order of name, by directory listing; nothing is decrypted.
    pub fn connections(&self) -> Result<Vec<(ProviderName, ConnectionName)>, VaultError> {
        let mut found = BTreeSet::new();
        for dir in entries(&self.dir)? {
            // A file, or a directory that is not ours: no provider has such a name.
            let Some(provider) = file_name(&dir).and_then(|name| name.parse::<ProviderName>().ok()).filter(|_| dir.is_dir()) else {
                continue;
            };
            found.extend(self.of(&provider)?.into_iter().map(|connection| (provider.clone(), connection)));
        }
        Ok(found.into_iter().collect())
    }

    /// The connections of one provider in order of name.
    pub fn of(&self, provider: &ProviderName) -> Result<Vec<ConnectionName>, VaultError> {
        let files = entries(&self.dir.join(provider.as_str()))?;
        let sealed = files.iter().filter(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX));
        let mut names: Vec<_> = sealed.filter_map(|path| path.file_stem()?.to_str()?.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// The one marked as such, else `default`, else the only one. `None`: there is none, or several and no choice was made.
    pub fn default_connection(&self, provider: &ProviderName) -> Result<Option<ConnectionName>, VaultError> {
        self.default_among(provider, self.of(provider)?)
    }

    /// [`Self::default_connection`] of a provider whose connections are known already.
    pub fn default_among(&self, provider: &ProviderName, mut names: Vec<ConnectionName>) -> Result<Option<ConnectionName>, VaultError> {
        let marker = self.dir.join(provider.as_str()).join(DEFAULT);
        if let Some(bytes) = file::read(&marker)? {
            let name = String::from_utf8_lossy(&bytes).trim().to_owned();
            return match names.into_iter().find(|n| n.as_str() == name) {
                None => Err(VaultError::DanglingDefault { path: marker, provider: provider.clone(), name }),
                found => Ok(found),
            };
        }
        let position = names.iter().position(|n| n.as_str() == ConnectionName::DEFAULT).or((names.len() == 1).then_some(0));
        Ok(position.map(|i| names.swap_remove(i)))
    }

    /// False if there is no such connection.
    pub fn set_default(&self, provider: &ProviderName, connection: &ConnectionName) -> Result<bool, VaultError> {
        let _lock = self.lock()?;
        if !self.of(provider)?.contains(connection) {
            return Ok(false);
        }
        file::replace(&self.dir.join(provider.as_str()).join(DEFAULT), format!("{connection}\n").as_bytes()).map(|()| true)
    }

    pub fn load(&self, provider: &ProviderName, connection: &ConnectionName) -> Result<Option<Record>, VaultError> {
        let path = self.path(provider, connection);
        let Some(sealed) = file::read(&path)? else { return Ok(None) };
        let json = seal::open(self.key()?, &sealed).map_err(|error| match error {
            seal::OpenError::WrongKey => VaultError::WrongKey { origin: self.key_origin(), path: path.clone() },
            seal::OpenError::Damaged(reason) => VaultError::Damaged { path: path.clone(), reason },
        })?;
        Record::from_json(&json, provider, connection, &path).map(Some)
    }

    /// The address of the user's own installation, if the connection has one.
    pub fn base_url(&self, provider: &ProviderName, connection: &ConnectionName) -> Result<Option<String>, VaultError> {
        Ok(self.load(provider, connection)?.and_then(|record| record.base_url))
    }

    /// Seals a record in its place. With `replace` false an existing one is an error. The first connection of a provider becomes its default.
    pub fn store(&self, record: &Record, replace: bool) -> Result<(), VaultError> {
        let _lock = self.lock()?;
        let path = self.path(&record.provider, &record.connection);
        let others = self.of(&record.provider)?;
        if !replace && others.contains(&record.connection) {
            return Err(VaultError::Exists { provider: record.provider.clone(), connection: record.connection.clone() });
        }
        self.check_one_key(record)?;
        let failed = |reason| VaultError::Seal { path: path.clone(), reason };
        let json = record.to_json().map_err(|error| failed(error.to_string()))?;
        let sealed = seal::seal(&self.key_or_new()?.to_public(), &json).map_err(failed)?;
        file::create_dir(&self.dir.join(record.provider.as_str()))?;
        // The only one is the default, and stays it beside a second one, also where a kill came before it was marked.
        if let [only] = others.as_slice() {
            self.mark_first(&record.provider, only)?;
        }
        file::replace(&path, &sealed)?;
        if others.is_empty() { self.mark_first(&record.provider, &record.connection) } else { Ok(()) }
    }

    /// Marks the first connection as the default, if that needs a mark.
    fn mark_first(&self, provider: &ProviderName, connection: &ConnectionName) -> Result<(), VaultError> {
        let marker = self.dir.join(provider.as_str()).join(DEFAULT);
        if connection.as_str() == ConnectionName::DEFAULT || file::read(&marker)?.is_some() {
            return Ok(());
        }
        file::replace(&marker, format!("{connection}\n").as_bytes())
    }

    /// Removes a connection; false if there was none. Needs no key.
    pub fn remove(&self, provider: &ProviderName, connection: &ConnectionName) -> Result<bool, VaultError> {
        if !self.of(provider)?.contains(connection) {
            return Ok(false);
        }
        let _lock = self.lock()?;
        let dir = self.dir.join(provider.as_str());
        let marker = dir.join(DEFAULT);
        // The marker first: a crash in between must not leave one that names nothing.
        if file::read(&marker)?.is_some_and(|name| name.trim_ascii() == connection.as_str().as_bytes()) {
            file::remove(&marker)?;
        }
        let removed = file::remove(&self.path(provider, connection))?;
        match fs::remove_dir(&dir) {
            Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
                Err(VaultError::io("remove", &dir)(error))
            }
            _ => Ok(removed),
        }
    }

    /// Reads the key, so that a problem with it is found before it is needed. False: there is none yet, and nothing is sealed.
    pub fn check_key(&self) -> Result<bool, VaultError> {
        match self.key() {
            Err(VaultError::KeyMissing { sealed: 0, .. }) => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// A vault sealed under two keys would be half unreadable with either.
    fn check_one_key(&self, record: &Record) -> Result<(), VaultError> {
        let other = self.connections()?.into_iter().find(|(p, c)| (p, c) != (&record.provider, &record.connection));
        match other.map(|(provider, connection)| self.load(&provider, &connection)) {
            Some(Err(error @ VaultError::WrongKey { .. })) => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, provider: &ProviderName, connection: &ConnectionName) -> PathBuf {
        self.dir.join(provider.as_str()).join(format!("{connection}.{SUFFIX}"))
    }

    /// Whoever has it finds nothing that a killed process left half written.
    fn lock(&self) -> Result<File, VaultError> {
        file::create_dir(&self.dir)?;
        let lock = file::lock(&self.dir.join(LOCK))?;
        file::sweep(&self.dir)?;
        entries(&self.dir)?.iter().filter(|path| path.is_dir()).try_for_each(|dir| file::sweep(dir))?;
        Ok(lock)
    }

    fn key(&self) -> Result<&x25519::Identity, VaultError> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        match self.source.read(&self.dir)? {
            Some(key) => Ok(self.key.get_or_init(|| key)),
            None => Err(VaultError::KeyMissing { path: self.source.path(&self.dir), sealed: self.connections()?.len() }),
        }
    }

    /// Only while holding the lock. A key is made only where nothing was ever sealed: a new one would hide that the old is gone.
    fn key_or_new(&self) -> Result<&x25519::Identity, VaultError> {
        match self.key() {
            Err(VaultError::KeyMissing { sealed: 0, .. }) => {
                let key = self.source.create(&self.dir)?;
                Ok(self.key.get_or_init(|| key))
            }
            result => result,
        }
    }
}

/// What is in a directory; nothing if it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, VaultError> {
    let read = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(VaultError::io("read", dir))?,
    };
    read.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>().map_err(VaultError::io("read", dir))
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{secret::Secret, vault::Kind};
    use std::os::unix::fs::MetadataExt;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn vault(&self) -> Vault {
            Vault::open(self.0.path(), KeySource::Identity)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join("vault").join(name)
        }
    }

    fn record(provider: &str, connection: &str, key: &str) -> Record {
        let fields = [("api_key".to_owned(), Secret::new(key.to_owned()))].into();
        let (provider, connection) = (provider.parse().unwrap(), connection.parse().unwrap());
        Record { provider, connection, base_url: None, created_at: 0, kind: Kind::ApiKey { fields } }
    }

    fn value(vault: &Vault, provider: &str, connection: &str) -> Result<Option<String>, VaultError> {
        let record = vault.load(&provider.parse().unwrap(), &connection.parse().unwrap())?;
        Ok(record.map(|record| match record.kind {
            Kind::ApiKey { fields } => fields["api_key"].expose().clone(),
            Kind::OAuth { access_token, .. } => access_token.expose().clone(),
        }))
    }

    fn default(vault: &Vault) -> Option<String> {
        vault.default_connection(&"acme".parse().unwrap()).unwrap().map(|name| name.to_string())
    }

    #[test]
    fn what_was_stored_is_found_by_the_next_process() {
        let home = Home::new();
        home.vault().store(&record("acme", "default", "one"), false).unwrap();
        assert_eq!(value(&home.vault(), "acme", "default").unwrap().as_deref(), Some("one"));
        assert_eq!(value(&home.vault(), "acme", "other").unwrap(), None);
        let error = home.vault().store(&record("acme", "default", "two"), false).unwrap_err();
        assert!(matches!(error, VaultError::Exists { .. }));
        home.vault().store(&record("acme", "default", "two"), true).unwrap();
        assert_eq!(value(&home.vault(), "acme", "default").unwrap().as_deref(), Some("two"));
    }

    #[test]
    fn every_file_is_private_and_none_holds_the_secret_in_clear() {
        let home = Home::new();
        home.vault().store(&record("acme", "work", "sk-plain"), false).unwrap();
        for (name, mode) in
            [("", 0o700), ("acme", 0o700), (".lock", 0o600), ("identity.txt", 0o600), ("acme/work.age", 0o600), ("acme/.default", 0o600)]
        {
            assert_eq!(fs::metadata(home.path(name)).unwrap().mode() & 0o777, mode, "{name}");
        }
        let sealed = fs::read(home.path("acme/work.age")).unwrap();
        assert!(sealed.starts_with(b"age-encryption.org/v1\n"));
        assert!(!sealed.windows(8).any(|window| window == b"sk-plain"));
    }

    #[test]
    fn the_default_is_the_first_then_the_chosen_then_the_only_one() {
        let (home, acme) = (Home::new(), "acme".parse().unwrap());
        let vault = home.vault();
        assert_eq!(default(&vault), None);
        vault.store(&record("acme", "work", "k"), false).unwrap();
        vault.store(&record("acme", "home", "k"), false).unwrap();
        assert_eq!(default(&vault).as_deref(), Some("work"));
        assert!(vault.set_default(&acme, &"home".parse().unwrap()).unwrap());
        assert!(!vault.set_default(&acme, &"none".parse().unwrap()).unwrap());
        vault.store(&record("acme", "third", "k"), false).unwrap();
        assert_eq!(default(&vault).as_deref(), Some("home"));
        assert!(vault.remove(&acme, &"home".parse().unwrap()).unwrap());
        assert_eq!(default(&vault), None, "two are left and none was chosen");
        assert!(vault.remove(&acme, &"work".parse().unwrap()).unwrap());
        assert_eq!(default(&vault).as_deref(), Some("third"));
        assert!(vault.remove(&acme, &"third".parse().unwrap()).unwrap());
        assert!(!vault.remove(&acme, &"third".parse().unwrap()).unwrap());
        assert!(!home.path("acme").exists());
    }

    #[test]
    fn a_default_that_names_nothing_is_an_error() {
        let home = Home::new();
        home.vault().store(&record("acme", "work", "k"), false).unwrap();
        fs::write(home.path("acme/.default"), "gone\n").unwrap();
        let error = home.vault().default_connection(&"acme".parse().unwrap()).unwrap_err().to_string();
        assert_eq!(error, format!("{} names connection `gone`, which does not exist", home.path("acme/.default").display()));
    }

    #[test]
    fn a_lost_key_is_never_replaced() {
        let home = Home::new();
        home.vault().store(&record("acme", "default", "k"), false).unwrap();
        fs::remove_file(home.path("identity.txt")).unwrap();
        let want = format!("the vault key {} is missing, but 1 sealed credential(s) need it", home.path("identity.txt").display());
        assert_eq!(value(&home.vault(), "acme", "default").unwrap_err().to_string(), want);
        assert_eq!(home.vault().store(&record("acme", "default", "k"), true).unwrap_err().to_string(), want);
        assert!(!home.path("identity.txt").exists());
    }

    #[test]
    fn another_key_neither_opens_nor_adds() {
        let home = Home::new();
        home.vault().store(&record("acme", "default", "k"), false).unwrap();
        let key = home.0.path().join("other.txt");
        fs::write(&key, age::secrecy::ExposeSecret::expose_secret(&x25519::Identity::generate().to_string())).unwrap();
        let other = Vault::open(home.0.path(), KeySource::File(key.clone()));
        let want = format!("the vault key {} does not open {}", key.display(), home.path("acme/default.age").display());
        assert_eq!(value(&other, "acme", "default").unwrap_err().to_string(), want);
        assert_eq!(other.store(&record("acme", "second", "k"), false).unwrap_err().to_string(), want);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let home = Home::new();
        home.vault().store(&record("acme", "default", "k"), false).unwrap();
        let path = home.path("acme/default.age");
        fs::hard_link(&path, home.path("second")).unwrap();
        let want = format!("{} has 2 hard links; a secret file must have one name only", path.display());
        assert_eq!(value(&home.vault(), "acme", "default").unwrap_err().to_string(), want);
        fs::remove_file(home.path("second")).unwrap();
        fs::write(&path, b"junk").unwrap();
        let error = value(&home.vault(), "acme", "default").unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} is damaged: ", path.display())), "{error}");
        assert_eq!(home.vault().connections().unwrap().len(), 1, "still listed");
    }

    #[test]
    fn writers_wait_for_each_other() {
        let home = Home::new();
        std::thread::scope(|scope| {
            for i in 0..8 {
                let home = &home;
                scope.spawn(move || home.vault().store(&record("acme", &format!("c{i}"), "k"), false).unwrap());
            }
        });
        let vault = home.vault();
        for (provider, connection) in vault.connections().unwrap() {
            assert_eq!(value(&vault, provider.as_str(), connection.as_str()).unwrap().as_deref(), Some("k"));
        }
        assert_eq!(vault.connections().unwrap().len(), 8, "one key for all of them");
    }
}
