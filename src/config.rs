//! Environment and `config.toml` become one [`Config`], once. Flags of a single command are the command's own.
use crate::{
    host::Host,
    route::policy::{Policy, Rule},
    vault::KeySource,
};
use clap::ValueEnum;
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zeroize::Zeroizing;

/// How a run leads its program's connections to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Proxy variables: programs that heed them are served.
    Environment,
    /// A network namespace: every connection is served or passed on.
    Transparent,
}

/// How a transparent run's other traffic leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EgressChoice {
    /// `veth` for root, `relay` for others.
    Auto,
    /// TCP relayed by the supervisor; no privilege needed.
    Relay,
    /// A link pair with NAT; needs root.
    Veth,
    /// TCP as with `relay`; UDP and ICMP by pasta(1), package passt; not for root.
    Pasta,
}

/// What outgoing connections of a run go through.
#[derive(Clone, PartialEq, Eq)]
pub enum UpstreamChoice {
    /// As the proxy variables say.
    Env,
    /// Nothing.
    None,
    /// The proxy of this URL, which may hold a password; with what named it, for messages.
    Proxy { setting: &'static str, url: Arc<Zeroizing<String>> },
}

impl UpstreamChoice {
    /// `setting`: the flag or key that says so. A URL is checked where it is used.
    pub fn new(setting: &'static str, text: String) -> Self {
        match text.as_str() {
            "env" => Self::Env,
            "none" => Self::None,
            _ => Self::Proxy { setting, url: Arc::new(Zeroizing::new(text)) },
        }
    }
}

impl fmt::Debug for UpstreamChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Env => "Env",
            Self::None => "None",
            Self::Proxy { .. } => "Proxy",
        })
    }
}

/// What holds for every command of this process.
pub struct Config {
    /// `AUTHSOME_HOME`, absolute.
    pub home: PathBuf,
    pub key: KeySource,
    pub mode: Mode,
    pub egress: EgressChoice,
    pub upstream: UpstreamChoice,
    /// Hosts relayed unopened in every run.
    pub passthrough: Vec<Host>,
    /// Ports by the names that `--expose` and `--publish` take.
    pub ports: BTreeMap<String, u16>,
    /// Rules of every run.
    pub policy: Policy,
    /// Whether a run stops when its audit trail cannot be written.
    pub audit_required: bool,
    /// Bytes after which the audit trail's file is rotated.
    pub audit_max_size: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no home directory is known for this user")]
    NoHome,
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {reason}", path.display())]
    Syntax { path: PathBuf, line: usize, reason: String },
    #[error("{}:{line}: unknown key `{key}`", path.display())]
    UnknownKey { path: PathBuf, line: usize, key: String },
    #[error("{}:{line}: {key} cannot be `{text}`; it is {accepted}", path.display())]
    Value { path: PathBuf, line: usize, key: String, text: String, accepted: String },
    #[error("{name} cannot be `{text}`; it is {accepted}")]
    Variable { name: &'static str, text: String, accepted: String },
}

/// The variable that moves everything authsome stores.
pub const HOME_VARIABLE: &str = "AUTHSOME_HOME";
/// The variable that sets the default mode of `run`.
pub const MODE_VARIABLE: &str = "AUTHSOME_RUN_MODE";
const UPSTREAM_KEY: &str = "run.upstream";
const UPSTREAMS: &str = "a proxy's URL, env or none";
/// Far more than every key takes.
const MAX_FILE: u64 = 1 << 20;
/// Every key `config.toml` may have.
pub const KEYS: [&str; 10] = [
    "run.mode",
    "run.egress",
    "run.upstream",
    "run.passthrough",
    "run.allow",
    "run.deny",
    "ports.NAME",
    "vault.key",
    "audit.required",
    "audit.max_size",
];
/// Where the audit trail is rotated if nothing else is said.
pub const AUDIT_MAX_SIZE: u64 = 10 * 1024 * 1024;
/// A file of a handful of records; below that rotation would be all there is.
const AUDIT_MIN_SIZE: u64 = 4096;

impl Config {
    /// `user_home`: the invoking user's home directory. Nothing is created or written.
    pub fn load(env: &dyn Fn(&str) -> Option<String>, user_home: Option<PathBuf>) -> Result<Self, ConfigError> {
        let home = home(env, user_home)?;
        let mut config = Self {
            key: KeySource::Identity,
            mode: Mode::Environment,
            egress: EgressChoice::Auto,
            upstream: UpstreamChoice::Env,
            passthrough: Vec::new(),
            ports: BTreeMap::new(),
            policy: Policy::default(),
            audit_required: false,
            audit_max_size: AUDIT_MAX_SIZE,
            home,
        };
        let path = config.home.join("config.toml");
        match read(&path) {
            Ok(text) => config.merge(&File { path: &path, text: &text })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Read { path, source }),
        }
        if let Some(text) = env(MODE_VARIABLE).filter(|text| !text.is_empty()) {
            let accepted = choices::<Mode>();
            config.mode = Mode::from_str(&text, false).map_err(|_| ConfigError::Variable { name: MODE_VARIABLE, text, accepted })?;
        }
        config.key = KeySource::from_env(env, config.key);
        Ok(config)
    }

    pub(crate) fn merge(&mut self, file: &File) -> Result<(), ConfigError> {
        let document = DeTable::parse(file.text).map_err(|error| ConfigError::Syntax {
            path: file.path.to_owned(),
            line: file.line(error.span().unwrap_or_default().start),
            reason: error.message().to_owned(),
        })?;
        for (section, table) in document.get_ref() {
            let DeValue::Table(table) = table.get_ref() else {
                return Err(file.unknown(section.get_ref(), section.span()));
            };
            for (key, value) in table {
                let name = format!("{}.{}", section.get_ref(), key.get_ref());
                match name.as_str() {
                    "run.mode" => self.mode = file.choice(&name, value)?,
                    "run.egress" => self.egress = file.choice(&name, value)?,
                    "run.upstream" => {
                        let text = value.get_ref().as_str().ok_or_else(|| file.value(&name, value, UPSTREAMS.to_owned()))?;
                        self.upstream = UpstreamChoice::new(UPSTREAM_KEY, text.to_owned());
                    }
                    "run.passthrough" => self.passthrough = file.hosts(&name, value)?,
                    "run.allow" => self.policy.extend(Policy::new(file.rules(&name, value)?, Vec::new())),
                    "run.deny" => self.policy.extend(Policy::new(Vec::new(), file.rules(&name, value)?)),
                    "vault.key" => self.key = file.key(&name, value)?,
                    "audit.required" => {
                        self.audit_required =
                            value.get_ref().as_bool().ok_or_else(|| file.value(&name, value, "true or false".to_owned()))?;
                    }
                    "audit.max_size" => {
                        let bytes = value.get_ref().as_integer().and_then(|integer| integer.as_str().parse().ok());
                        self.audit_max_size = bytes
                            .filter(|bytes| *bytes >= AUDIT_MIN_SIZE)
                            .ok_or_else(|| file.value(&name, value, format!("a number of bytes, {AUDIT_MIN_SIZE} or more")))?;
                    }
                    _ if section.get_ref() == "ports" => {
                        let port = value.get_ref().as_integer().and_then(|integer| integer.as_str().parse().ok()).filter(|port| *port > 0);
                        let port = port.ok_or_else(|| file.value(&name, value, "a port, 1 to 65535".to_owned()))?;
                        self.ports.insert(key.get_ref().to_string(), port);
                    }
                    _ => return Err(file.unknown(&name, key.span())),
                }
            }
        }
        Ok(())
    }
}

/// A FIFO in its place must not hang us, nor a device fill the memory.
pub fn read(path: &Path) -> io::Result<String> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(io::Error::other("no file, or over 1 MiB"));
    }
    fs::read_to_string(path)
}

/// `AUTHSOME_HOME`, or `~/.authsome`.
fn home(env: &dyn Fn(&str) -> Option<String>, user_home: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    let home = match env(HOME_VARIABLE).filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => user_home.ok_or(ConfigError::NoHome)?.join(".authsome"),
    };
    std::path::absolute(&home).map_err(|source| ConfigError::Read { path: home, source })
}

/// The file being read, for messages that point into it.
pub(crate) struct File<'a> {
    pub path: &'a Path,
    pub text: &'a str,
}

impl File<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
    }

    fn unknown(&self, key: &str, span: Range<usize>) -> ConfigError {
        ConfigError::UnknownKey { path: self.path.to_owned(), line: self.line(span.start), key: key.to_owned() }
    }

    fn value(&self, key: &str, value: &Spanned<DeValue<'_>>, accepted: String) -> ConfigError {
        let text = self.text.get(value.span()).unwrap_or_default().trim_matches('"').to_owned();
        ConfigError::Value { path: self.path.to_owned(), line: self.line(value.span().start), key: key.to_owned(), text, accepted }
    }

    fn choice<T: ValueEnum>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<T, ConfigError> {
        let chosen = value.get_ref().as_str().and_then(|text| T::from_str(text, false).ok());
        chosen.ok_or_else(|| self.value(key, value, choices::<T>()))
    }

    fn hosts(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<Host>, ConfigError> {
        let accepted = || "a list of host names".to_owned();
        let DeValue::Array(items) = value.get_ref() else { return Err(self.value(key, value, accepted())) };
        let host = |item: &Spanned<DeValue<'_>>| {
            item.get_ref().as_str().and_then(|text| Host::from_str(text).ok()).ok_or_else(|| self.value(key, item, accepted()))
        };
        items.iter().map(host).collect()
    }

    fn rules(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<Rule>, ConfigError> {
        let accepted = "a list of rules, each `[METHOD[,METHOD] ][PROTOCOL://]HOST[:PORT][/PATH]` or `provider:NAME`";
        let wrong = |value| self.value(key, value, accepted.to_owned());
        let DeValue::Array(items) = value.get_ref() else { return Err(wrong(value)) };
        items.iter().map(|item| item.get_ref().as_str().and_then(|text| Rule::from_str(text).ok()).ok_or_else(|| wrong(item))).collect()
    }

    fn key(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<KeySource, ConfigError> {
        match value.get_ref().as_str() {
            Some("identity") => Ok(KeySource::Identity),
            Some("passphrase") => Ok(KeySource::Passphrase),
            Some("keyring") => Ok(KeySource::Keyring),
            _ => Err(self.value(key, value, "identity, passphrase or keyring".to_owned())),
        }
    }
}

/// `a, b or c`.
fn choices<T: ValueEnum>() -> String {
    let names: Vec<_> = T::value_variants().iter().filter_map(|v| Some(v.to_possible_value()?.get_name().to_owned())).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("config.toml"), text).unwrap();
        let path = home.path().display().to_string();
        let env = |name: &str| match name {
            HOME_VARIABLE => Some(path.clone()),
            _ => variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()),
        };
        let config = Config::load(&env, None).map_err(|error| error.to_string().replace(&path, "HOME"));
        assert_eq!(fs::read_to_string(home.path().join("config.toml")).unwrap(), text, "nothing is overwritten");
        config
    }

    #[test]
    fn every_key_is_read() {
        let config = load(
            "[run]\nmode = \"transparent\"\negress = \"relay\"\nupstream = \"none\"\npassthrough = [\"Pinned.acme.test\"]\nallow = [\"*.acme.test\"]\ndeny = [\"DELETE *\"]\n[ports]\nweb = 5173\n[vault]\nkey = \"passphrase\"\n[audit]\nrequired = true\nmax_size = 65536\n",
            &[],
        )
        .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((config.mode, config.egress, config.audit_required), (Mode::Transparent, EgressChoice::Relay, true));
        assert_eq!(config.audit_max_size, 65_536);
        assert_eq!(config.upstream, UpstreamChoice::None);
        assert_eq!(config.passthrough[0].to_string(), "pinned.acme.test");
        assert_eq!(config.ports["web"], 5173);
        assert_eq!(config.policy.to_string(), "allow      *.acme.test\ndeny       DELETE *\n");
        assert!(matches!(config.key, KeySource::Passphrase));
    }

    #[test]
    fn the_environment_wins() {
        let config = load("run.mode = \"transparent\"\n", &[(MODE_VARIABLE, "environment")]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.mode, Mode::Environment);
    }

    #[test]
    fn mistakes_name_place_text_and_what_is_accepted() {
        for (text, want) in [
            ("[run]\nmode = \"tranparent\"\n", "HOME/config.toml:2: run.mode cannot be `tranparent`; it is environment or transparent"),
            ("[run]\negress = 3\n", "HOME/config.toml:2: run.egress cannot be `3`; it is auto, relay, veth or pasta"),
            (
                "[run]\npassthrough = [\"a.test\", \"a b\"]\n",
                "HOME/config.toml:2: run.passthrough cannot be `a b`; it is a list of host names",
            ),
            ("[vault]\nkey = \"file\"\n", "HOME/config.toml:2: vault.key cannot be `file`; it is identity, passphrase or keyring"),
            ("\n[audit]\nrequired = \"yes\"\n", "HOME/config.toml:3: audit.required cannot be `yes`; it is true or false"),
            ("[audit]\nmax_size = 1\n", "HOME/config.toml:2: audit.max_size cannot be `1`; it is a number of bytes, 4096 or more"),
            ("[ports]\nweb = 0\n", "HOME/config.toml:2: ports.web cannot be `0`; it is a port, 1 to 65535"),
            ("[run]\nmodus = 1\n", "HOME/config.toml:2: unknown key `run.modus`"),
            ("mode = \"transparent\"\n", "HOME/config.toml:1: unknown key `mode`"),
            ("[run\n", "HOME/config.toml:1: unclosed table, expected `]`"),
        ] {
            assert_eq!(load(text, &[]).err().as_deref(), Some(want), "{text}");
        }
        assert_eq!(
            load("", &[(MODE_VARIABLE, "yes")]).err().as_deref(),
            Some("AUTHSOME_RUN_MODE cannot be `yes`; it is environment or transparent")
        );
    }

    #[test]
    fn home_is_absolute_and_defaults_to_the_users() {
        let none = |_: &str| None;
        assert_eq!(home(&none, Some("/home/ada".into())).unwrap(), Path::new("/home/ada/.authsome"));
        assert!(matches!(home(&none, None), Err(ConfigError::NoHome)));
        let relative = |_: &str| Some("x".to_owned());
        assert!(home(&relative, None).unwrap().is_absolute());
    }
}
