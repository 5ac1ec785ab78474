//! `authsome doctor`
use super::{conflicts, context::Context, output::printable, report::Failure};
use crate::{config::HOME_VARIABLE, run::proxies};
use nix::{
    errno::Errno,
    unistd::{AccessFlags, access, geteuid},
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::MetadataExt, path::Path};

#[cfg_attr(not(target_os = "linux"), path = "doctor/sandbox_elsewhere.rs")]
mod sandbox;

pub use sandbox::privileged;

/// Check everything a run needs, and say how to mend what is missing
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  authsome doctor
  sudo authsome doctor          also what a run as root needs")]
pub struct Doctor {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Something works less well than it could.
    Warning,
    Failed,
}

/// One line: what was tried, what was seen, how to mend it.
pub struct Check {
    name: &'static str,
    state: State,
    seen: String,
    mend: Option<String>,
    /// The exit code if it failed.
    code: u8,
}

impl Check {
    fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, state: State::Ok, seen: seen.into(), mend: None, code: 0 }
    }

    fn warning(name: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, state: State::Warning, seen: seen.into(), mend: Some(mend.into()), code: 0 }
    }

    /// As the error would be told by any other command.
    fn failed(name: &'static str, failure: &Failure) -> Self {
        let report = failure.report();
        Self { name, state: State::Failed, seen: report.message, mend: Some(report.hint), code: report.code }
    }
}

impl Doctor {
    pub fn run(self, context: &Context, mut checks: Vec<Check>) -> Result<u8, Failure> {
        if let Err(failure) = context.outside_run() {
            checks.push(Check::failed("vault", &failure));
        } else {
            checks.extend([home(context), key(context), trail(context), names(), upstream(context)]);
            checks.extend(sandbox::unprivileged());
            checks.extend(credentials(context)?);
            checks.extend(providers(context)?);
        }
        let code = checks.iter().map(|check| check.code).max().unwrap_or(0);
        if context.out.json {
            context.out.document(&document(&checks))?;
        } else {
            context.out.data(&checks.iter().map(line).collect::<String>())?;
        }
        Ok(code)
    }
}

fn line(check: &Check) -> String {
    let state = match check.state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Failed => "FAILED",
    };
    let mend = check.mend.as_ref().map_or_else(String::new, |mend| format!("; {}", printable(mend)));
    format!("{state:<8} {:<15} {}{mend}\n", check.name, printable(&check.seen))
}

fn document(checks: &[Check]) -> Value {
    let check = |check: &Check| {
        let state = match check.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "failed",
        };
        json!({"name": check.name, "status": state, "seen": check.seen, "mend": check.mend})
    };
    let failed = checks.iter().any(|check| check.state == State::Failed);
    json!({"status": if failed { "failed" } else { "ready" }, "checks": checks.iter().map(check).collect::<Vec<_>>()})
}

fn home(context: &Context) -> Check {
    let (name, home) = ("home", &context.config.home);
    let shown = home.display();
    match fs::metadata(home) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Check::ok(name, format!("{shown} is not there yet; login makes it")),
        Err(source) => Check::failed(name, &Failure::File { action: "read", path: home.clone(), source }),
        Ok(meta) if meta.uid() != geteuid().as_raw() => {
            Check::warning(name, format!("{shown} belongs to another user"), format!("set {HOME_VARIABLE} to a directory of your own"))
        }
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            let mode = meta.mode() & 0o777;
            Check::warning(name, format!("{shown} can be entered by others (mode {mode:04o})"), format!("chmod 700 {shown}"))
        }
        Ok(_) => Check::ok(name, format!("{shown} is yours alone")),
    }
}

fn key(context: &Context) -> Check {
    let name = "vault key";
    let checked = context.vault().and_then(|vault| Ok((vault.check_key()?, vault.key_origin())));
    match checked {
        Ok((true, origin)) => Check::ok(name, format!("{origin} is readable")),
        Ok((false, origin)) => Check::ok(name, format!("{origin} is not there yet; the first login makes it")),
        Err(failure) => Check::failed(name, &failure),
    }
}

/// Where the records of runs go.
fn trail(context: &Context) -> Check {
    let (name, path) = ("audit trail", context.config.home.join("log"));
    match access(&path, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Check::ok(name, format!("{} can be written", path.display())),
        Err(Errno::ENOENT) => Check::ok(name, format!("{} is not there yet; the first run makes it", path.display())),
        Err(errno) => Check::failed(name, &Failure::File { action: "write to", path, source: errno.into() }),
    }
}

/// A run answers lookups from the servers that are named here.
fn names() -> Check {
    let (name, path) = ("resolver", Path::new("/etc/resolv.conf"));
    match fs::read_to_string(path) {
        Ok(text) if text.lines().any(|line| line.trim_start().starts_with("nameserver")) => {
            Check::ok(name, "/etc/resolv.conf names a server")
        }
        Ok(_) => Check::warning(name, "/etc/resolv.conf names no server", "name one, unless everything goes through an --upstream proxy"),
        Err(source) => Check::failed(name, &Failure::File { action: "read", path: path.to_owned(), source }),
    }
}

/// The proxy that runs go through unless told otherwise.
fn upstream(context: &Context) -> Check {
    let name = "upstream";
    match proxies::probe(&context.config.upstream) {
        Ok(None) => Check::ok(name, "none; connections go direct"),
        Ok(Some(proxies)) => Check::ok(name, format!("{proxies} answers")),
        Err(error) => Check::failed(name, &error.into()),
    }
}

fn credentials(context: &Context) -> Result<Vec<Check>, Failure> {
    let (name, vault) = ("credentials", context.vault()?);
    let connections = vault.connections()?;
    let unreadable: Vec<_> = connections
        .iter()
        .filter_map(|(provider, connection)| vault.load(provider, connection).err())
        .map(|error| Check::failed(name, &error.into()))
        .collect();
    match (unreadable.is_empty(), connections.len()) {
        (true, 0) => Ok(vec![Check::warning(name, "no provider is connected", "authsome login PROVIDER")]),
        (true, count) => Ok(vec![Check::ok(name, format!("{count} connection(s), all readable"))]),
        (false, _) => Ok(unreadable),
    }
}

fn providers(context: &Context) -> Result<Vec<Check>, Failure> {
    let (name, catalog) = ("providers", context.catalog()?);
    let (mut checks, mut connected) = (Vec::new(), Vec::new());
    let stored: Vec<_> = context.vault()?.connections()?.into_iter().map(|(provider, _)| provider).collect();
    for provider in catalog.names() {
        match catalog.find(&provider, None) {
            Err(error) => checks.push(Check::failed(name, &error.into())),
            Ok(Some(definition)) if stored.contains(&provider) => connected.push(definition),
            Ok(_) => {}
        }
    }
    for gone in stored.iter().filter(|stored| !catalog.names().contains(stored)) {
        let seen = format!("{gone} is connected, but its definition is gone");
        checks.push(Check::warning(name, seen, format!("authsome provider register FILE, or authsome revoke {gone}")));
    }
    checks.extend(
        conflicts::among(connected.iter())
            .into_iter()
            .map(|conflict| Check::warning("hosts", conflict, "remove or rename one of them, or make its api_url narrower")),
    );
    if checks.is_empty() {
        checks.push(Check::ok(name, format!("{} definitions, all valid", catalog.names().len())));
    }
    Ok(checks)
}
