//! What went wrong, told to people and programs: heading, hint, exit code. The only place that knows hints and exit codes.
use super::output::{Output, printable};
use crate::{
    config::{self, ConfigError},
    demo::DemoError,
    login::LoginError,
    provider::{ProviderError, ProviderName, Source},
    route::policy::PolicyError,
    run::{RunError, ca::CaError},
    trust_store,
    vault::{ConnectionName, VaultError},
};
use netns::Gate;
use serde_json::json;
use std::{
    io::{self, Write},
    path::PathBuf,
};

#[cfg(test)]
mod tests;

/// Exit codes, as README lists them.
pub const UNEXPECTED: u8 = 1;
pub const USAGE: u8 = 2;
pub const CONNECTION: u8 = 3;
pub const PROVIDER: u8 = 4;
pub const CREDENTIAL: u8 = 5;
pub const EXISTS: u8 = 6;
pub const REGISTERED: u8 = 7;
pub const PLATFORM: u8 = 9;
/// As env(1), nice(1) and timeout(1): the command itself failed, not what it was to run.
const AFTER_START: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Everything a command can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("no provider `{name}`")]
    UnknownProvider { name: String, nearest: Option<String> },
    #[error("the definition of {0} is bundled and cannot be removed")]
    BundledProvider(ProviderName),
    #[error("{0} is not connected")]
    NotConnected(ProviderName),
    #[error("{provider} has no connection `{connection}`")]
    NoConnection { provider: ProviderName, connection: ConnectionName, existing: Vec<ConnectionName> },
    #[error("{provider} has several connections and none is the default one")]
    NoDefault { provider: ProviderName, existing: Vec<ConnectionName> },
    #[error("{provider}/{connection} has no `{field}`")]
    NoField { provider: ProviderName, connection: ConnectionName, field: String },
    #[error("the access token of {provider}/{connection} has expired")]
    Expired { provider: ProviderName, connection: ConnectionName },
    #[error("the definition of {0} names no variable to export")]
    NoExport(ProviderName),
    #[error("the definition of {provider} exports `{variable}`, which is not a variable's name")]
    BadVariable { provider: ProviderName, variable: String },
    #[error("no field `{field}`")]
    UnknownField { field: String, known: Vec<String> },
    /// The run's id, if it is known.
    #[error("this is inside a run: the vault is out of reach here")]
    InsideRun(Option<String>),
    #[error("{}: {source}", path.display())]
    Policy { path: PathBuf, source: PolicyError },
    #[error("no record of a run `{0}`")]
    UnknownRun(String),
    /// A flag that means nothing where the program is not in a namespace.
    #[error("{0} needs --transparent")]
    NeedsTransparent(&'static str),
    #[error("{flag} {text}: neither a port nor the name of one")]
    UnknownPort { flag: &'static str, text: String },
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    TrustStore(#[from] trust_store::Error),
    /// The same call with the rights.
    #[error("only root can change the system's stores of roots")]
    NeedsRoot { command: String },
    #[error("this system's store of roots is not known")]
    NoStore,
    #[error("{tool} is missing, and nothing was changed")]
    NoTool { tool: &'static str, package: &'static str },
    #[error("{0}")]
    Usage(String),
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
}

/// A [`Failure`] in the form in which it is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// For programs; names of the original program where it has the same error.
    pub kind: &'static str,
    pub code: u8,
    pub message: String,
    pub hint: String,
}

impl Failure {
    pub fn report(&self) -> Report {
        let (kind, code, hint) = self.classify();
        Report { kind, code, message: self.to_string(), hint }
    }

    fn classify(&self) -> (&'static str, u8, String) {
        match self {
            Self::Config(error) => ("ConfigError", USAGE, config_hint(error)),
            Self::Vault(error) => vault(error),
            Self::Provider(error) => provider(error),
            Self::Login(error) => login(error),
            Self::Run(error) => run(error),
            Self::Demo(error) => demo(error),
            Self::UnknownProvider { nearest, .. } => {
                let meant = nearest.as_ref().map_or_else(String::new, |name| format!("did you mean `{name}`? "));
                ("ProviderNotFoundError", PROVIDER, format!("{meant}`authsome list --all` shows every provider"))
            }
            Self::BundledProvider(name) => (
                "OperationNotAllowedError",
                PROVIDER,
                format!("a file of your own overrides it: authsome provider register FILE with \"name\": \"{name}\""),
            ),
            Self::NotConnected(provider) => ("ConnectionNotFoundError", CONNECTION, format!("authsome login {provider}")),
            Self::NoConnection { provider, connection, existing } if existing.is_empty() => {
                ("ConnectionNotFoundError", CONNECTION, format!("authsome login {provider} --connection {connection}"))
            }
            Self::NoConnection { existing, .. } => ("ConnectionNotFoundError", CONNECTION, format!("there is {}", listed(existing))),
            Self::NoDefault { provider, existing } => {
                let hint = format!(
                    "name one with --connection, or choose it for good: authsome set-default {provider} NAME ({})",
                    listed(existing)
                );
                ("ConnectionNotFoundError", CONNECTION, hint)
            }
            Self::NoField { provider, connection, .. } | Self::Expired { provider, connection } => {
                let kind = if matches!(self, Self::Expired { .. }) { "TokenExpiredError" } else { "CredentialMissingError" };
                (kind, CREDENTIAL, format!("authsome login {provider} --connection {connection} --force"))
            }
            Self::NoExport(provider) => (
                "OperationNotAllowedError",
                PROVIDER,
                format!("add \"export\": {{\"NAME\": \"API_TOKEN\"}} to the definition of {provider}"),
            ),
            Self::BadVariable { .. } => {
                ("OperationNotAllowedError", PROVIDER, "letters, digits and underscores, not beginning with a digit".to_owned())
            }
            Self::UnknownField { known, .. } => ("FieldNotFound", UNEXPECTED, format!("there is {}", known.join(", "))),
            Self::InsideRun(run) => {
                let run = run.as_ref().map_or_else(|| "the run".to_owned(), |id| format!("run {id}"));
                let hint = format!("programs use credentials without having them; call authsome outside of {run}");
                ("OperationNotAllowedError", PROVIDER, hint)
            }
            Self::Ca(error) => ca(error),
            Self::TrustStore(error) => trust_store(error),
            Self::NeedsRoot { command } => ("PlatformError", PLATFORM, command.clone()),
            Self::NoStore => (
                "PlatformError",
                PLATFORM,
                "authsome ca export writes the certificate out, to be installed as this system wants it".to_owned(),
            ),
            Self::NoTool { package, .. } => ("PlatformError", PLATFORM, format!("install the package {package}, then try again")),
            Self::NeedsTransparent(_) => {
                ("UsageError", USAGE, "add --transparent, or set run.mode = \"transparent\" in config.toml".to_owned())
            }
            Self::UnknownPort { .. } => {
                ("UsageError", USAGE, "a number from 1 to 65535, or a name as in config.toml: ports.web = 5173".to_owned())
            }
            Self::Policy { .. } => ("PolicyError", USAGE, "the format is TOML: allow = [\"RULE\"] and deny = [\"RULE\"]".to_owned()),
            Self::UnknownRun(_) => ("RunNotFoundError", UNEXPECTED, "authsome log --json shows the runs that are recorded".to_owned()),
            Self::Usage(_) => ("UsageError", USAGE, "authsome --help".to_owned()),
            Self::File { .. } => ("FileError", UNEXPECTED, "check that the path is right and that you may use it".to_owned()),
            // Whoever read the output has seen enough: `authsome list | head -1` did not fail.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ("OutputClosed", 0, String::new()),
            Self::Output(_) => ("OutputError", UNEXPECTED, "check where standard output goes".to_owned()),
        }
    }
}

fn listed(names: &[ConnectionName]) -> String {
    names.iter().map(ConnectionName::as_str).collect::<Vec<_>>().join(", ")
}

fn config_hint(error: &ConfigError) -> String {
    match error {
        ConfigError::NoHome => format!("set {} to a directory of your own", config::HOME_VARIABLE),
        ConfigError::Read { .. } => "check who may read it".to_owned(),
        ConfigError::Syntax { .. } => "the format is TOML: key = \"value\" under [section]".to_owned(),
        ConfigError::Value { .. } => "correct the line; nothing was changed".to_owned(),
        ConfigError::Variable { name, .. } => format!("correct or unset {name}"),
        ConfigError::UnknownKey { key, .. } => {
            let similar = |known: &&str| strsim::jaro_winkler(key, known);
            let nearest = config::KEYS.iter().max_by(|a, b| similar(a).total_cmp(&similar(b))).copied().unwrap_or_default();
            format!("did you mean `{nearest}`? There is {}", config::KEYS.join(", "))
        }
    }
}

fn vault(error: &VaultError) -> (&'static str, u8, String) {
    let hint = match error {
        VaultError::Exists { provider, .. } => {
            let hint = format!("--force replaces it, --connection NAME adds another: authsome login {provider} --connection NAME");
            return ("ConnectionAlreadyExistsError", EXISTS, hint);
        }
        VaultError::NoPassphrase => return ("InputCancelledError", USAGE, "the passphrase is asked for on the terminal".to_owned()),
        VaultError::PassphrasesDiffer => return ("InputCancelledError", USAGE, "try again; nothing was stored".to_owned()),
        VaultError::KeyUnsupported(_) => {
            return ("VaultError", PLATFORM, "set vault.key in config.toml to identity or passphrase".to_owned());
        }
        VaultError::Io { .. } | VaultError::Seal { .. } => {
            return ("VaultError", UNEXPECTED, "check who owns the file and that the disk has room".to_owned());
        }
        VaultError::DanglingDefault { provider, .. } => {
            return ("ConnectionNotFoundError", CONNECTION, format!("authsome set-default {provider} NAME"));
        }
        VaultError::HardLinked { path, .. } => format!("find the other names and remove them: find / -xdev -samefile {}", path.display()),
        VaultError::NotAFile { .. } | VaultError::TooLarge { .. } | VaultError::Misplaced { .. } => {
            "move it away and log in again".to_owned()
        }
        VaultError::KeyMissing { path, .. } => {
            format!("bring {} back from a backup; without it, remove each credential (authsome logout) and log in again", path.display())
        }
        VaultError::KeyInvalid { .. } => "a key is one line beginning with AGE-SECRET-KEY-1, as age-keygen(1) writes it".to_owned(),
        VaultError::Passphrase { .. } => "try again".to_owned(),
        VaultError::WrongKey { .. } => {
            "use the key it was stored with, or log in again with --force once the others are removed".to_owned()
        }
        VaultError::Damaged { .. } => "bring the file back from a backup, or log in again with --force".to_owned(),
    };
    ("CredentialMissingError", CREDENTIAL, hint)
}

fn provider(error: &ProviderError) -> (&'static str, u8, String) {
    match error {
        ProviderError::Exists(_) => ("ProviderAlreadyRegisteredError", REGISTERED, "--force replaces it".to_owned()),
        ProviderError::Name(_) => ("ProviderNotFoundError", PROVIDER, "`authsome list --all` shows every provider".to_owned()),
        ProviderError::Read { .. } | ProviderError::Write { .. } => {
            ("FileError", UNEXPECTED, "check that the path is right and that you may use it".to_owned())
        }
        ProviderError::Misnamed { found, .. } => {
            ("InvalidProviderSchemaError", PROVIDER, format!("name the file {found}.json, or correct the name in it"))
        }
        ProviderError::Field { origin: Source::Bundled, .. } => {
            ("InvalidProviderSchemaError", PROVIDER, "a file of your own overrides the bundled definition".to_owned())
        }
        ProviderError::Field { origin: Source::File(path), .. } => {
            ("InvalidProviderSchemaError", PROVIDER, format!("correct the file, then: authsome provider check {}", path.display()))
        }
    }
}

fn login(error: &LoginError) -> (&'static str, u8, String) {
    let (kind, hint) = match error {
        LoginError::Cancelled => ("InputCancelledError", "nothing was stored".to_owned()),
        LoginError::NoTerminal => ("InputCancelledError", "give the credential on --stdin or with --from-env VAR".to_owned()),
        LoginError::VariableUnset(name) => ("InputCancelledError", format!("set {name}, or use --stdin")),
        LoginError::Read(_) => ("InputCancelledError", "give the credential on --stdin or with --from-env VAR".to_owned()),
        LoginError::Placeholder(_) => ("AuthenticationFailedError", "the real key is shown where the service makes keys".to_owned()),
        LoginError::FlowUnsupported { .. } => (
            "AuthenticationFailedError",
            "this version stores keys and tokens: add --flow api_key or --stdin where the provider takes one".to_owned(),
        ),
        LoginError::NotAnObject { fields, .. } => {
            let example: Vec<_> = fields.iter().map(|field| format!("\"{field}\": \"…\"")).collect();
            ("AuthenticationFailedError", format!("{{{}}}", example.join(", ")))
        }
        LoginError::UnknownField { .. } => ("AuthenticationFailedError", "nothing was stored".to_owned()),
        LoginError::TooLong(_)
        | LoginError::NotText
        | LoginError::Empty(_)
        | LoginError::ControlCharacter(_)
        | LoginError::Pattern { .. } => {
            ("AuthenticationFailedError", "check that the whole key was copied and nothing else; nothing was stored".to_owned())
        }
    };
    (kind, USAGE, hint)
}

fn run(error: &RunError) -> (&'static str, u8, String) {
    match error {
        RunError::Vault(error) => vault(error),
        RunError::Ca(error) => ca(error),
        RunError::Provider(error) => provider(error),
        RunError::Gate(error) => gate(error),
        RunError::Nested => Failure::InsideRun(None).classify(),
        RunError::NoConnection(provider, connection) => {
            ("ConnectionNotFoundError", CONNECTION, format!("authsome login {provider} --connection {connection}"))
        }
        RunError::NoProvider(provider) => {
            let hint = format!("authsome provider register FILE, or authsome revoke {provider}");
            ("ProviderNotFoundError", PROVIDER, hint)
        }
        RunError::Roots(error) => ("UsageError", USAGE, error.hint()),
        RunError::Upstream(_) => ("UsageError", USAGE, "a proxy is http://, https:// or socks5://[USER:PASSWORD@]HOST:PORT".to_owned()),
        RunError::Proxy(error) => ("PlatformError", PLATFORM, error.hint()),
        RunError::Conceal(_) => ("PlatformError", PLATFORM, "name the proxy in HTTPS_PROXY or in run.upstream of config.toml".to_owned()),
        RunError::RuleUnsupported(_) => ("UsageError", USAGE, "leave that rule out, or run without rules".to_owned()),
        RunError::NoCommand => ("UsageError", USAGE, "authsome run --transparent -- CMD".to_owned()),
        RunError::UserRequired => {
            let hint = "call it with sudo, or add --user NAME; --user root works, and root is not contained".to_owned();
            ("UsageError", USAGE, hint)
        }
        RunError::LinuxOnly(_) => {
            ("PlatformError", PLATFORM, "leave --transparent out: programs that heed HTTPS_PROXY need no namespace".to_owned())
        }
        RunError::RootUnsupported => {
            let hint = "call it without sudo; authsome ca install --system --dry-run shows what root has to do".to_owned();
            ("PlatformError", PLATFORM, hint)
        }
        RunError::UserNeedsRoot => ("UsageError", USAGE, "leave --user out, or use sudo".to_owned()),
        RunError::UnknownUser(_) => ("UsageError", USAGE, "getent passwd shows the users of this machine".to_owned()),
        RunError::EgressNeedsRoot(_) => ("PlatformError", PLATFORM, "call it with sudo, or use --egress relay".to_owned()),
        RunError::PastaAsRoot => ("UsageError", USAGE, "use --egress veth, which carries UDP and ICMP, too".to_owned()),
        RunError::PastaWithRules => ("UsageError", USAGE, "use --egress relay, or run without rules".to_owned()),
        RunError::NoPasta => ("PlatformError", PLATFORM, "sudo apt install passt, or use --egress relay".to_owned()),
        #[cfg(target_os = "linux")]
        RunError::Pasta(_) => ("PlatformError", PLATFORM, "pasta needs a default route and /dev/net/tun; or use --egress relay".to_owned()),
        RunError::CannotRun(libc::ENOENT) => ("CommandNotFoundError", NOT_FOUND, "check the name and PATH".to_owned()),
        RunError::CannotRun(_) => ("CommandNotExecutableError", NOT_EXECUTABLE, "check that it is a program you may run".to_owned()),
        RunError::OwnPort(..) => ("UsageError", USAGE, "let the service listen on another port".to_owned()),
        RunError::Publish(..) => ("UsageError", USAGE, "choose a port that is free".to_owned()),
        RunError::AuditLost(_) | RunError::AuditRequired | RunError::Stopped(..) | RunError::Both { .. } => {
            ("RunError", AFTER_START, "authsome log shows what happened until then".to_owned())
        }
        RunError::Audit { .. } => ("AuditError", UNEXPECTED, "a run without its trail is not started; check who owns the file".to_owned()),
        _ => ("PlatformError", PLATFORM, "authsome doctor".to_owned()),
    }
}

fn ca(error: &CaError) -> (&'static str, u8, String) {
    match error {
        CaError::File(error) => vault(error),
        CaError::Foreign { .. } | CaError::NoKey { .. } | CaError::Key { .. } => {
            let hint = "bring both files of the authority back from a backup, or move them away for a new one".to_owned();
            ("CaError", UNEXPECTED, hint)
        }
        CaError::Make(_) => ("CaError", UNEXPECTED, "authsome doctor".to_owned()),
    }
}

fn trust_store(error: &trust_store::Error) -> (&'static str, u8, String) {
    let hint = match error {
        trust_store::Error::Journal(error) => return vault(error),
        trust_store::Error::Other { path } => format!("see whose it is: openssl x509 -noout -subject -in {}", path.display()),
        trust_store::Error::Shape { path, .. } => format!("correct {}, or move it away", path.display()),
        trust_store::Error::File { .. } => "check that the path is right and that you may use it".to_owned(),
        _ => "authsome ca status".to_owned(),
    };
    ("TrustStoreError", UNEXPECTED, hint)
}

fn demo(error: &DemoError) -> (&'static str, u8, String) {
    match error {
        DemoError::Gate(error) => gate(error),
        DemoError::LinuxOnly => ("PlatformError", PLATFORM, "authsome run works here without --transparent".to_owned()),
        DemoError::Netns(_) => ("PlatformError", PLATFORM, "authsome doctor".to_owned()),
        DemoError::Io(..) | DemoError::Failed(_) => ("DemoError", UNEXPECTED, "authsome doctor".to_owned()),
    }
}

fn gate(gate: &Gate) -> (&'static str, u8, String) {
    let hint = match (gate.opens_with(), nix::unistd::geteuid().is_root()) {
        (Some(command), true) => command,
        (Some(command), false) => format!("{command}; or use sudo"),
        (None, true) => "this has to be opened on the machine that this system runs on".to_owned(),
        (None, false) => "use sudo".to_owned(),
    };
    ("PlatformError", PLATFORM, hint)
}

/// Says it, on stdout as JSON or on stderr for people, and gives the exit code.
pub fn tell(failure: &Failure, out: Output) -> u8 {
    let report = failure.report();
    if report.code != 0 {
        write(&report, out.json);
    }
    report.code
}

/// clap's own errors, and its help and version texts, which are no errors.
pub fn usage(error: &clap::Error, json: bool) -> u8 {
    if json && error.use_stderr() {
        let text = error.render().to_string();
        let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let message = lines.join(" ").trim_start_matches("error: ").to_owned();
        write(&Report { kind: "UsageError", code: USAGE, message, hint: "authsome --help".to_owned() }, true);
    } else if let Err(closed) = error.print() {
        return Failure::Output(closed).report().code;
    }
    if error.use_stderr() { USAGE } else { 0 }
}

/// That nobody can read it is no reason to fail differently.
fn write(report: &Report, json: bool) {
    if json {
        let document = json!({"error": report.kind, "message": report.message, "hint": report.hint});
        let _ = writeln!(io::stdout(), "{document:#}");
    } else {
        let (error, hint) = (anstyle::AnsiColor::Red.on_default().bold(), anstyle::AnsiColor::Cyan.on_default().bold());
        let mut stderr = anstream::stderr();
        let _ = writeln!(stderr, "{error}error:{error:#} {}", printable(&report.message));
        let _ = writeln!(stderr, "{hint}hint:{hint:#} {}", printable(&report.hint));
    }
}
