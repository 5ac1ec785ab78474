//! One run of a program: what is prepared, started, served and undone, in that order.

pub mod ca;
mod common;
mod directory;
mod environment;
#[cfg(target_os = "linux")]
pub mod harden;
pub mod identity;
#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
pub mod mask;
#[cfg(target_os = "linux")]
pub(crate) mod message;
pub mod options;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod ports;
#[cfg_attr(not(target_os = "linux"), path = "process_elsewhere.rs")]
mod process;
pub mod proxies;
#[cfg(target_os = "linux")]
mod rules;
#[cfg(target_os = "linux")]
pub mod sandbox;
#[cfg(target_os = "linux")]
mod session;
mod signals;
#[cfg_attr(not(target_os = "linux"), path = "elsewhere.rs")]
mod transparent;
pub mod trust;
pub mod variables;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    audit,
    config::Config,
    host::Host,
    provider::{Catalog, ProviderError, ProviderName},
    route::{Route, Table},
    upstream,
    vault::{ConnectionName, Vault, VaultError},
};

pub use environment::environment;
pub use transparent::{sweep, transparent};

use common::Connected;

/// The file in the masked AUTHSOME_HOME that says so, and whose run it is.
pub const MARKER: &str = ".authsome-run";

/// Why a run did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("no command given")]
    NoCommand,
    #[error("already inside a run: the vault is out of reach here")]
    Nested,
    #[error("running as root: name the user the command is to run as")]
    UserRequired,
    #[error("--user needs root")]
    UserNeedsRoot,
    #[error("{0} is for Linux, which alone has network namespaces")]
    LinuxOnly(&'static str),
    #[error("authsome cannot be run as root on this system: it could not give root's groups up")]
    RootUnsupported,
    #[error("no such user: {0}")]
    UnknownUser(String),
    #[error("--egress {0} needs root")]
    EgressNeedsRoot(&'static str),
    #[error("--egress pasta is for users without root")]
    PastaAsRoot,
    #[error("--egress pasta would carry nothing: where there are rules only TCP and DNS pass")]
    PastaWithRules,
    #[error("--egress pasta: there is no program pasta in PATH")]
    NoPasta,
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Pasta(#[from] netns::uplink::pasta::PastaError),
    #[error("rule `{0}`: udp and icmp rules need a run that carries them; where there are rules only TCP and DNS pass")]
    RuleUnsupported(String),
    #[error("read the working directory: {0}")]
    Cwd(#[source] io::Error),
    #[error("make a run id: {0}")]
    RunId(#[source] io::Error),
    #[error("{0} has no connection `{1}`")]
    NoConnection(ProviderName, ConnectionName),
    #[error("connected provider {0} has no definition")]
    NoProvider(ProviderName),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Mask(#[from] mask::Error),
    #[error("--upstream-ca: {0}")]
    Roots(#[from] upstream::RootsError),
    #[error(transparent)]
    Upstream(#[from] upstream::InvalidProxy),
    #[error(transparent)]
    Proxy(#[from] upstream::UpstreamError),
    #[error("hide the proxy's password on the command line: {0}")]
    Conceal(#[source] io::Error),
    /// The kernel or the distribution does not let this user have a sandbox.
    #[error(transparent)]
    Gate(netns::Gate),
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[cfg(target_os = "linux")]
    #[error("prepare the sandbox: {0}")]
    Sandbox(init::Failure),
    #[error("the sandbox's first process ended early")]
    InitGone,
    #[error("the sandbox's first process said something unexpected")]
    Protocol,
    #[error("{0}: {1}")]
    System(&'static str, #[source] nix::Error),
    #[error("{0} {1}: authsome itself listens on that port inside the run")]
    OwnPort(&'static str, u16),
    #[error("publish port {0} on the host's loopback: {1}")]
    Publish(u16, #[source] io::Error),
    #[error("give up capabilities: {0}")]
    Capabilities(String),
    #[error("make the run's certificate authority: {0}")]
    Authority(#[from] rcgen::Error),
    #[error("open {}: {error}", path.display())]
    Audit { path: PathBuf, error: io::Error },
    #[error("write the audit trail: {0}")]
    AuditLost(#[source] io::Error),
    #[error("stopped, since the audit trail cannot be written and audit.required is set")]
    AuditRequired,
    #[error("read the resolvers: {0}")]
    Resolvers(#[source] io::Error),
    #[error("start the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// `execve` failed with this errno: 127 where nothing was found, else 126.
    #[error("cannot run the command: {}", nix::errno::Errno::from_raw(*.0).desc())]
    CannotRun(i32),
    #[error(transparent)]
    Ca(#[from] ca::CaError),
    #[error("write the run's trust: {0}")]
    Trust(#[source] trust::Error),
    #[error("listen on loopback: {0}")]
    Listen(#[source] io::Error),
    #[error("make a directory for the run: {0}")]
    Directory(#[source] io::Error),
    #[error("{0} stopped: {1}")]
    Stopped(&'static str, #[source] io::Error),
    #[error("run failed: {run}; cleanup also failed: {cleanup}")]
    Both { run: Box<RunError>, cleanup: Box<RunError> },
}

/// How a run ends with what became of its audit trail: a hole in it is told, and an error where there may be none.
fn settle(code: Result<u8, RunError>, audit: &audit::Log, required: bool) -> Result<u8, RunError> {
    match audit.flush().map_err(RunError::AuditLost) {
        Err(lost) if required && code.is_ok() => return Err(lost),
        Err(lost) => say(&lost.to_string()),
        Ok(()) => {}
    }
    code
}

/// A remark of ours on stderr. That nobody can read it (`2>&-`) is no reason to fail, which is what `eprintln!` makes of it.
fn say(remark: &str) {
    drop(writeln!(io::stderr(), "authsome: {remark}"));
}

fn audit_log(config: &Config, id: &str) -> Result<audit::Log, RunError> {
    let path = config.home.join("log/audit.jsonl");
    audit::Log::open(&path, id, config.audit_max_size).map_err(|error| RunError::Audit { path, error })
}

/// Every connected provider's claims; only a definition with `{base_url}` needs its record for that.
fn routes(home: &Path, connected: &[Connected], passthrough: &[Host], vault: &Vault) -> Result<Table, RunError> {
    let catalog = Catalog::open(home)?;
    let (mut routes, mut endpoints) = (Vec::new(), Vec::new());
    for connected in connected {
        let name = &connected.provider.name;
        let record = if connected.provider.needs_base_url() { vault.load(name, &connected.connection)? } else { None };
        let resolved = match record.and_then(|record| record.base_url) {
            Some(base_url) => catalog.find(name, Some(&base_url))?,
            None => None,
        };
        let provider = resolved.as_ref().unwrap_or(&connected.provider);
        routes.extend(provider.api_urls.iter().map(|url| Route { provider: name.clone(), url: url.clone() }));
        endpoints.extend(provider.endpoints.iter().cloned());
    }
    Ok(Table::new(routes, endpoints, passthrough.to_vec()))
}
