//! The full text of every mapping.
use super::*;
use crate::route::policy::Rule;
use std::{io::ErrorKind, path::Path};

fn acme() -> ProviderName {
    "acme".parse().unwrap()
}

fn work() -> ConnectionName {
    "work".parse().unwrap()
}

fn path() -> PathBuf {
    Path::new("/h/f").to_owned()
}

fn io_error() -> io::Error {
    ErrorKind::PermissionDenied.into()
}

#[track_caller]
fn told(failure: impl Into<Failure>, kind: &str, code: u8, message: &str, hint: &str) {
    let report = failure.into().report();
    assert_eq!((report.kind, report.code, report.message.as_str(), report.hint.as_str()), (kind, code, message, hint));
}

#[test]
fn names_that_are_not_there() {
    told(
        Failure::UnknownProvider { name: "acne".into(), nearest: Some("acme".into()) },
        "ProviderNotFoundError",
        4,
        "no provider `acne`",
        "did you mean `acme`? `authsome list --all` shows every provider",
    );
    told(
        Failure::UnknownProvider { name: "x".into(), nearest: None },
        "ProviderNotFoundError",
        4,
        "no provider `x`",
        "`authsome list --all` shows every provider",
    );
    told(
        Failure::BundledProvider(acme()),
        "OperationNotAllowedError",
        4,
        "the definition of acme is bundled and cannot be removed",
        "a file of your own overrides it: authsome provider register FILE with \"name\": \"acme\"",
    );
    told(Failure::NotConnected(acme()), "ConnectionNotFoundError", 3, "acme is not connected", "authsome login acme");
    told(
        Failure::NoConnection { provider: acme(), connection: work(), existing: vec![] },
        "ConnectionNotFoundError",
        3,
        "acme has no connection `work`",
        "authsome login acme --connection work",
    );
    told(
        Failure::NoConnection { provider: acme(), connection: work(), existing: vec![ConnectionName::default()] },
        "ConnectionNotFoundError",
        3,
        "acme has no connection `work`",
        "there is default",
    );
    told(
        Failure::NoDefault { provider: acme(), existing: vec!["home".parse().unwrap(), work()] },
        "ConnectionNotFoundError",
        3,
        "acme has several connections and none is the default one",
        "name one with --connection, or choose it for good: authsome set-default acme NAME (home, work)",
    );
    told(
        Failure::UnknownField { field: "x".into(), known: vec!["status".into(), "scopes".into()] },
        "FieldNotFound",
        1,
        "no field `x`",
        "there is status, scopes",
    );
}

#[test]
fn credentials_that_cannot_be_had() {
    let again = "authsome login acme --connection work --force";
    let (provider, connection) = (acme(), work());
    told(Failure::NoField { provider, connection, field: "sid".into() }, "CredentialMissingError", 5, "acme/work has no `sid`", again);
    let (provider, connection) = (acme(), work());
    told(Failure::Expired { provider, connection }, "TokenExpiredError", 5, "the access token of acme/work has expired", again);
    told(
        Failure::NoExport(acme()),
        "OperationNotAllowedError",
        4,
        "the definition of acme names no variable to export",
        "add \"export\": {\"NAME\": \"API_TOKEN\"} to the definition of acme",
    );
    told(
        Failure::BadVariable { provider: acme(), variable: "A;id".into() },
        "OperationNotAllowedError",
        4,
        "the definition of acme exports `A;id`, which is not a variable's name",
        "letters, digits and underscores, not beginning with a digit",
    );
}

#[test]
fn what_this_command_does_not_do_here() {
    told(
        Failure::InsideRun(Some("4f1c".into())),
        "OperationNotAllowedError",
        4,
        "this is inside a run: the vault is out of reach here",
        "programs use credentials without having them; call authsome outside of run 4f1c",
    );
    told(
        Failure::Policy { path: "/p".into(), source: PolicyError::Rule("get x".parse::<Rule>().unwrap_err()) },
        "PolicyError",
        2,
        "/p: rule `get x`: `get` is no method; a rule is `[METHOD[,METHOD] ][PROTOCOL://]HOST[:PORT][/PATH]` or `provider:NAME`",
        "the format is TOML: allow = [\"RULE\"] and deny = [\"RULE\"]",
    );
    told(
        Failure::UnknownRun("4f1c".into()),
        "RunNotFoundError",
        1,
        "no record of a run `4f1c`",
        "authsome log --json shows the runs that are recorded",
    );
    told(
        RunError::RuleUnsupported("icmp://*".into()),
        "UsageError",
        2,
        "rule `icmp://*`: udp and icmp rules need a run that carries them; where there are rules only TCP and DNS pass",
        "leave that rule out, or run without rules",
    );
    told(
        Failure::UnknownPort { flag: "--expose", text: "web".to_owned() },
        "UsageError",
        2,
        "--expose web: neither a port nor the name of one",
        "a number from 1 to 65535, or a name as in config.toml: ports.web = 5173",
    );
    told(
        Failure::NeedsTransparent("--expose"),
        "UsageError",
        2,
        "--expose needs --transparent",
        "add --transparent, or set run.mode = \"transparent\" in config.toml",
    );
    told(Failure::Usage("no".into()), "UsageError", 2, "no", "authsome --help");
    told(
        Failure::File { action: "read", path: path(), source: io_error() },
        "FileError",
        1,
        "cannot read /h/f: permission denied",
        "check that the path is right and that you may use it",
    );
    told(
        Failure::Output(ErrorKind::StorageFull.into()),
        "OutputError",
        1,
        "cannot write to standard output: no storage space",
        "check where standard output goes",
    );
    assert_eq!(Failure::Output(ErrorKind::BrokenPipe.into()).report().code, 0);
}

#[test]
fn configuration() {
    let line = 3;
    told(ConfigError::NoHome, "ConfigError", 2, "no home directory is known for this user", "set AUTHSOME_HOME to a directory of your own");
    told(
        ConfigError::Read { path: path(), source: io_error() },
        "ConfigError",
        2,
        "cannot read /h/f: permission denied",
        "check who may read it",
    );
    told(
        ConfigError::Syntax { path: path(), line, reason: "unclosed table".into() },
        "ConfigError",
        2,
        "/h/f:3: unclosed table",
        "the format is TOML: key = \"value\" under [section]",
    );
    told(
        ConfigError::UnknownKey { path: path(), line, key: "vault.keys".into() },
        "ConfigError",
        2,
        "/h/f:3: unknown key `vault.keys`",
        "did you mean `vault.key`? There is run.mode, run.egress, run.upstream, run.passthrough, run.allow, run.deny, ports.NAME, vault.key, audit.required, audit.max_size",
    );
    told(
        ConfigError::Value { path: path(), line, key: "run.mode".into(), text: "x".into(), accepted: "a or b".into() },
        "ConfigError",
        2,
        "/h/f:3: run.mode cannot be `x`; it is a or b",
        "correct the line; nothing was changed",
    );
    told(
        ConfigError::Variable { name: "AUTHSOME_RUN_MODE", text: "x".into(), accepted: "a or b".into() },
        "ConfigError",
        2,
        "AUTHSOME_RUN_MODE cannot be `x`; it is a or b",
        "correct or unset AUTHSOME_RUN_MODE",
    );
}

#[test]
fn the_vault() {
    let credential = |error: VaultError, message: &str, hint: &str| told(error, "CredentialMissingError", 5, message, hint);
    credential(VaultError::NotAFile { path: path() }, "/h/f is not a regular file", "move it away and log in again");
    credential(VaultError::TooLarge { path: path(), limit: 9 }, "/h/f is larger than 9 bytes", "move it away and log in again");
    credential(
        VaultError::HardLinked { path: path(), links: 2 },
        "/h/f has 2 hard links; a secret file must have one name only",
        "find the other names and remove them: find / -xdev -samefile /h/f",
    );
    credential(
        VaultError::KeyMissing { path: path(), sealed: 2 },
        "the vault key /h/f is missing, but 2 sealed credential(s) need it",
        "bring /h/f back from a backup; without it, remove each credential (authsome logout) and log in again",
    );
    credential(
        VaultError::KeyInvalid { origin: "AUTHSOME_MASTER_KEY".into(), reason: "it is empty" },
        "AUTHSOME_MASTER_KEY does not hold an age secret key: it is empty",
        "a key is one line beginning with AGE-SECRET-KEY-1, as age-keygen(1) writes it",
    );
    credential(VaultError::Passphrase { path: path() }, "the passphrase does not open /h/f", "try again");
    credential(
        VaultError::WrongKey { origin: "/k".into(), path: path() },
        "the vault key /k does not open /h/f",
        "use the key it was stored with, or log in again with --force once the others are removed",
    );
    credential(
        VaultError::Damaged { path: path(), reason: "r".into() },
        "/h/f is damaged: r",
        "bring the file back from a backup, or log in again with --force",
    );
    credential(
        VaultError::Misplaced { path: path(), found: "acme/work".into() },
        "/h/f holds the credential of acme/work",
        "move it away and log in again",
    );
    let disk = "check who owns the file and that the disk has room";
    told(VaultError::Io { action: "read", path: path(), source: io_error() }, "VaultError", 1, "cannot read /h/f: permission denied", disk);
    told(VaultError::Seal { path: path(), reason: "r".into() }, "VaultError", 1, "cannot seal /h/f: r", disk);
    told(
        VaultError::KeyUnsupported("keyring"),
        "VaultError",
        9,
        "the vault key is kept in `keyring`, which this version cannot read",
        "set vault.key in config.toml to identity or passphrase",
    );
    told(VaultError::NoPassphrase, "InputCancelledError", 2, "no passphrase was given", "the passphrase is asked for on the terminal");
    told(VaultError::PassphrasesDiffer, "InputCancelledError", 2, "the two passphrases differ", "try again; nothing was stored");
    told(
        VaultError::Exists { provider: acme(), connection: work() },
        "ConnectionAlreadyExistsError",
        6,
        "connection `work` of acme exists already",
        "--force replaces it, --connection NAME adds another: authsome login acme --connection NAME",
    );
    told(
        VaultError::DanglingDefault { path: path(), provider: acme(), name: "x".into() },
        "ConnectionNotFoundError",
        3,
        "/h/f names connection `x`, which does not exist",
        "authsome set-default acme NAME",
    );
}

#[test]
fn definitions() {
    let schema = |error: ProviderError, message: &str, hint: &str| told(error, "InvalidProviderSchemaError", 4, message, hint);
    let field = |origin| ProviderError::Field { origin, field: "api_url".into(), reason: "r".into() };
    schema(field(Source::File(path())), "/h/f: api_url: r", "correct the file, then: authsome provider check /h/f");
    schema(field(Source::Bundled), "bundled: api_url: r", "a file of your own overrides the bundled definition");
    schema(
        ProviderError::Misnamed { path: path(), found: acme(), wanted: "other".parse().unwrap() },
        "/h/f: name: `acme` in a file for `other`",
        "name the file acme.json, or correct the name in it",
    );
    let usable = "check that the path is right and that you may use it";
    told(ProviderError::Read { path: path(), error: io_error() }, "FileError", 1, "/h/f: permission denied", usable);
    told(ProviderError::Write { path: path(), error: io_error() }, "FileError", 1, "write /h/f: permission denied", usable);
    told(ProviderError::Exists(acme()), "ProviderAlreadyRegisteredError", 7, "provider acme is registered already", "--force replaces it");
    told(
        ProviderError::Name("A".into()),
        "ProviderNotFoundError",
        4,
        "`A` is not a provider name (lower-case letters, digits, `.`, `_`, `-`; at most 64)",
        "`authsome list --all` shows every provider",
    );
}

#[test]
fn login() {
    let input = |error: LoginError, message: &str, hint: &str| told(error, "InputCancelledError", 2, message, hint);
    let otherwise = "give the credential on --stdin or with --from-env VAR";
    input(LoginError::Cancelled, "input cancelled", "nothing was stored");
    input(LoginError::NoTerminal, "there is no terminal to ask on", otherwise);
    input(LoginError::Read(io_error()), "cannot read the credential: permission denied", otherwise);
    input(LoginError::VariableUnset("K".into()), "the variable K is not set", "set K, or use --stdin");
    let failed = |error: LoginError, message: &str, hint: &str| told(error, "AuthenticationFailedError", 2, message, hint);
    let copied = "check that the whole key was copied and nothing else; nothing was stored";
    let fields = || vec!["api_key".to_owned(), "sid".to_owned()];
    failed(LoginError::TooLong(9), "the credential is longer than 9 bytes", copied);
    failed(LoginError::NotText, "the credential is not valid UTF-8", copied);
    failed(LoginError::Empty("API key".into()), "API key is empty", copied);
    failed(LoginError::ControlCharacter("API key".into()), "API key holds a line break or another control character", copied);
    failed(
        LoginError::Pattern { label: "API key".into(), provider: "Acme".into(), pattern: "^ak-".into() },
        "API key of Acme does not have the form ^ak-",
        copied,
    );
    failed(
        LoginError::Placeholder("API key".into()),
        "API key is a placeholder that authsome itself hands out, not a key",
        "the real key is shown where the service makes keys",
    );
    failed(
        LoginError::NotAnObject { provider: "duo".into(), fields: fields() },
        "duo takes several values: give a JSON object with api_key, sid",
        "{\"api_key\": \"…\", \"sid\": \"…\"}",
    );
    failed(
        LoginError::UnknownField { provider: "duo".into(), field: "x".into(), fields: fields() },
        "duo has no field `x`; it has api_key, sid",
        "nothing was stored",
    );
    failed(
        LoginError::FlowUnsupported { provider: "wide".into(), flow: "pkce".into() },
        "the flow `pkce` of wide is not in this version",
        "this version stores keys and tokens: add --flow api_key or --stdin where the provider takes one",
    );
}

#[test]
fn runs() {
    let usage = |error: RunError, message: &str, hint: &str| told(error, "UsageError", 2, message, hint);
    usage(RunError::NoCommand, "no command given", "authsome run --transparent -- CMD");
    usage(
        RunError::UserRequired,
        "running as root: name the user the command is to run as",
        "call it with sudo, or add --user NAME; --user root works, and root is not contained",
    );
    usage(RunError::UserNeedsRoot, "--user needs root", "leave --user out, or use sudo");
    usage(RunError::UnknownUser("x".into()), "no such user: x", "getent passwd shows the users of this machine");
    usage(RunError::Publish(80, io_error()), "publish port 80 on the host's loopback: permission denied", "choose a port that is free");
    told(RunError::EgressNeedsRoot("veth"), "PlatformError", 9, "--egress veth needs root", "call it with sudo, or use --egress relay");
    usage(RunError::PastaAsRoot, "--egress pasta is for users without root", "use --egress veth, which carries UDP and ICMP, too");
    usage(
        RunError::PastaWithRules,
        "--egress pasta would carry nothing: where there are rules only TCP and DNS pass",
        "use --egress relay, or run without rules",
    );
    told(
        RunError::NoPasta,
        "PlatformError",
        9,
        "--egress pasta: there is no program pasta in PATH",
        "sudo apt install passt, or use --egress relay",
    );
    told(
        RunError::Pasta(netns::uplink::pasta::PastaError::Refused("Failed to open tun socket in namespace".into())),
        "PlatformError",
        9,
        "connect the namespace by pasta: Failed to open tun socket in namespace",
        "pasta needs a default route and /dev/net/tun; or use --egress relay",
    );
    told(
        RunError::Nested,
        "OperationNotAllowedError",
        4,
        "already inside a run: the vault is out of reach here",
        "programs use credentials without having them; call authsome outside of the run",
    );
    told(
        RunError::NoConnection(acme(), work()),
        "ConnectionNotFoundError",
        3,
        "acme has no connection `work`",
        "authsome login acme --connection work",
    );
    told(
        RunError::NoProvider(acme()),
        "ProviderNotFoundError",
        4,
        "connected provider acme has no definition",
        "authsome provider register FILE, or authsome revoke acme",
    );
    told(
        RunError::CannotRun(libc::ENOENT),
        "CommandNotFoundError",
        127,
        "cannot run the command: No such file or directory",
        "check the name and PATH",
    );
    told(
        RunError::CannotRun(libc::EACCES),
        "CommandNotExecutableError",
        126,
        "cannot run the command: Permission denied",
        "check that it is a program you may run",
    );
    told(
        RunError::Stopped("proxy", io_error()),
        "RunError",
        125,
        "proxy stopped: permission denied",
        "authsome log shows what happened until then",
    );
    told(
        RunError::Audit { path: path(), error: io_error() },
        "AuditError",
        1,
        "open /h/f: permission denied",
        "a run without its trail is not started; check who owns the file",
    );
    told(
        RunError::LinuxOnly("--transparent"),
        "PlatformError",
        9,
        "--transparent is for Linux, which alone has network namespaces",
        "leave --transparent out: programs that heed HTTPS_PROXY need no namespace",
    );
    told(
        RunError::RootUnsupported,
        "PlatformError",
        9,
        "authsome cannot be run as root on this system: it could not give root's groups up",
        "call it without sudo; authsome ca install --system --dry-run shows what root has to do",
    );
    told(RunError::InitGone, "PlatformError", 9, "the sandbox's first process ended early", "authsome doctor");
    // What a run passes on is told as anywhere else.
    told(
        RunError::Vault(VaultError::Passphrase { path: path() }),
        "CredentialMissingError",
        5,
        "the passphrase does not open /h/f",
        "try again",
    );
}

#[test]
fn closed_gates() {
    let gate = |cause| {
        let tried = netns::Error { action: "make the namespaces".into(), source: nix::errno::Errno::EPERM };
        Failure::Run(RunError::Gate(Gate { tried, cause })).report()
    };
    let report = gate(netns::Cause::Sysctl { name: "kernel.unprivileged_userns_clone", is: 0, wants: 1 });
    assert_eq!((report.kind, report.code), ("PlatformError", 9));
    assert!(report.hint.starts_with("sudo sysctl -w kernel.unprivileged_userns_clone=1"), "{}", report.hint);
    assert!(!gate(netns::Cause::Unknown).hint.is_empty());
}

#[test]
fn the_demonstration() {
    told(
        DemoError::LinuxOnly,
        "PlatformError",
        9,
        "the demonstration needs Linux, which alone has network namespaces",
        "authsome run works here without --transparent",
    );
    told(DemoError::Failed("x".into()), "DemoError", 1, "the demonstration failed: x", "authsome doctor");
    told(DemoError::Io("make a directory".into(), io_error()), "DemoError", 1, "make a directory: permission denied", "authsome doctor");
}
