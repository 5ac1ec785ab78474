//! The key that opens the vault: an age identity, from a file here, a file elsewhere, a variable, or under a passphrase.
use super::{VaultError, file, prompt, seal};
use age::{secrecy::ExposeSecret, secrecy::SecretString, x25519};
use std::{
    path::{Path, PathBuf},
    str::FromStr,
};
use zeroize::Zeroizing;

/// Where the vault's key is. Nothing is read before it is needed.
#[derive(Clone)]
pub enum KeySource {
    /// `vault/identity.txt`, made when the first credential is stored.
    Identity,
    /// `vault/identity.age`: the same, sealed under a passphrase that is asked for on the terminal.
    Passphrase,
    /// The system's keyring.
    Keyring,
    /// `AUTHSOME_MASTER_KEY`: the key's own text, which stays where it is until it is needed: a run's first process is a copy of this one.
    Text,
    /// `AUTHSOME_MASTER_KEY_FILE`: an identity file as age-keygen(1) writes it.
    File(PathBuf),
}

impl KeySource {
    /// The variable that holds the key's own text.
    pub const TEXT_VARIABLE: &str = "AUTHSOME_MASTER_KEY";
    /// The variable that names a file with the key.
    pub const FILE_VARIABLE: &str = "AUTHSOME_MASTER_KEY_FILE";

    /// What the environment says wins over what the configuration says.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>, configured: Self) -> Self {
        let text = Zeroizing::new(env(Self::TEXT_VARIABLE).unwrap_or_default());
        match env(Self::FILE_VARIABLE).filter(|path| !path.is_empty()) {
            _ if !text.is_empty() => Self::Text,
            Some(path) => Self::File(path.into()),
            None => configured,
        }
    }

    /// How messages name it.
    pub fn describe(&self, vault: &Path) -> String {
        match self {
            Self::Identity => vault.join(IDENTITY).display().to_string(),
            Self::Passphrase => vault.join(SEALED_IDENTITY).display().to_string(),
            Self::Keyring => "keyring".to_owned(),
            Self::Text => Self::TEXT_VARIABLE.to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// A file outside the vault that must be kept from a run's program as the vault is.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            _ => None,
        }
    }

    /// The key, or `None` where it is still to be made.
    pub(super) fn read(&self, vault: &Path) -> Result<Option<x25519::Identity>, VaultError> {
        match self {
            Self::Identity => file::read(&vault.join(IDENTITY))?.map(|text| parse(&text, &self.describe(vault))).transpose(),
            Self::Passphrase => open_sealed(&vault.join(SEALED_IDENTITY)),
            Self::Keyring => Err(VaultError::KeyUnsupported("keyring")),
            Self::Text => {
                let text = Zeroizing::new(std::env::var(Self::TEXT_VARIABLE).unwrap_or_default());
                parse(text.as_bytes(), Self::TEXT_VARIABLE).map(Some)
            }
            Self::File(path) => match file::read_elsewhere(path)? {
                Some(text) => parse(&text, &self.describe(vault)).map(Some),
                None => Err(VaultError::io("read", path)(std::io::ErrorKind::NotFound.into())),
            },
        }
    }

    /// Makes the key where there is none. Only while holding the vault's lock.
    pub(super) fn create(&self, vault: &Path) -> Result<x25519::Identity, VaultError> {
        let identity = x25519::Identity::generate();
        let text = Zeroizing::new(format!(
            "# The key of the authsome vault beside it, as age-keygen(1) writes one. Whoever has it can open every stored credential.\n\
             # public key: {}\n{}\n",
            identity.to_public(),
            identity.to_string().expose_secret()
        ));
        match self {
            Self::Passphrase => {
                let path = vault.join(SEALED_IDENTITY);
                let recipient = age::scrypt::Recipient::new(new_passphrase()?);
                let sealed = seal::seal(&recipient, text.as_bytes()).map_err(|reason| VaultError::Seal { path: path.clone(), reason })?;
                file::create(&path, &sealed)?;
            }
            _ => file::create(&vault.join(IDENTITY), text.as_bytes())?,
        }
        Ok(identity)
    }

    /// The file that [`create`](Self::create) writes.
    pub(super) fn path(&self, vault: &Path) -> PathBuf {
        vault.join(if matches!(self, Self::Passphrase) { SEALED_IDENTITY } else { IDENTITY })
    }
}

const IDENTITY: &str = "identity.txt";
const SEALED_IDENTITY: &str = "identity.age";

/// The one secret key in an identity file: comments and blank lines are skipped (age-keygen(1)).
pub(crate) fn parse(text: &[u8], origin: &str) -> Result<x25519::Identity, VaultError> {
    let invalid = |reason| VaultError::KeyInvalid { origin: origin.to_owned(), reason };
    let text = str::from_utf8(text).map_err(|_| invalid("it is not text"))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => x25519::Identity::from_str(line).map_err(invalid),
        (None, _) => Err(invalid("it is empty")),
        (Some(_), Some(_)) => Err(invalid("more than one line")),
    }
}

fn open_sealed(path: &Path) -> Result<Option<x25519::Identity>, VaultError> {
    let Some(sealed) = file::read(path)? else { return Ok(None) };
    let passphrase = ask("Passphrase of the authsome vault: ")?;
    let text = seal::open(&age::scrypt::Identity::new(passphrase), &sealed).map_err(|error| match error {
        seal::OpenError::WrongKey => VaultError::Passphrase { path: path.to_owned() },
        seal::OpenError::Damaged(reason) => VaultError::Damaged { path: path.to_owned(), reason },
    })?;
    parse(&text, &path.display().to_string()).map(Some)
}

fn new_passphrase() -> Result<SecretString, VaultError> {
    let first = ask("New passphrase for the authsome vault: ")?;
    let second = ask("The same again: ")?;
    if first.expose_secret() == second.expose_secret() { Ok(first) } else { Err(VaultError::PassphrasesDiffer) }
}

fn ask(question: &str) -> Result<SecretString, VaultError> {
    let answer = prompt::ask(question, false).map_err(|_| VaultError::NoPassphrase)?;
    if answer.expose().is_empty() { Err(VaultError::NoPassphrase) } else { Ok(SecretString::from(answer.expose().as_str())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

    #[test]
    fn reads_what_age_keygen_writes() {
        for text in [KEY.to_owned(), format!("{KEY}\n"), format!("# created: x\n# public key: y\r\n\r\n{KEY}\r\n")] {
            assert!(parse(text.as_bytes(), "here").is_ok(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        for (text, want) in [
            ("", "here does not hold an age secret key: it is empty"),
            ("# only a comment", "here does not hold an age secret key: it is empty"),
            ("hunter2", "here does not hold an age secret key: invalid Bech32 encoding"),
            (&format!("{KEY}\n{KEY}"), "here does not hold an age secret key: more than one line"),
        ] {
            assert_eq!(parse(text.as_bytes(), "here").err().unwrap().to_string(), want);
        }
    }

    #[test]
    fn a_made_key_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let made = KeySource::Identity.create(dir.path()).unwrap();
        let read = KeySource::Identity.read(dir.path()).unwrap().unwrap();
        assert_eq!(made.to_public().to_string(), read.to_public().to_string());
    }

    #[test]
    fn the_environment_wins_over_the_configuration() {
        let vault = Path::new("/v");
        let describe = |env: &dyn Fn(&str) -> Option<String>| KeySource::from_env(env, KeySource::Identity).describe(vault);
        assert_eq!(describe(&|_| None), "/v/identity.txt");
        assert_eq!(describe(&|_| Some(String::new())), "/v/identity.txt");
        assert_eq!(describe(&|name| (name == "AUTHSOME_MASTER_KEY_FILE").then(|| "/k".to_owned())), "/k");
        assert_eq!(describe(&|_| Some("text".to_owned())), "AUTHSOME_MASTER_KEY");
    }
}
