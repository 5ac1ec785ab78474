//! What both ways to run a program need to know before they start it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::unistd::{AccessFlags, access};
use zeroize::Zeroize;

use super::{RunError, audit_log, identity::Identity, options::RunOptions, routes, say};
use crate::{
    config::Config,
    credential::{LazyNeedles, Needles, Stored},
    host::Host,
    provider::{Catalog, PLACEHOLDER, Provider, ProviderName},
    proxy::{self, tls::Authority},
    route::policy::{Policy, Protocol},
    upstream::{self, Proxies, Upstream},
    vault::{ConnectionName, Vault},
};

/// How long processes the command left behind have between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long connections of a command that has ended may still deliver what it sent.
pub const LAST_BYTES: Duration = Duration::from_secs(1);

/// A provider with the connection whose credential this run uses.
pub struct Connected {
    pub provider: Provider,
    pub connection: ConnectionName,
}

/// `injecting openai, stripe`
pub fn injecting(connected: &[Connected]) -> String {
    let names: Vec<_> = connected.iter().map(|connected| connected.provider.name.as_str()).collect();
    if names.is_empty() { "no provider connected".to_owned() } else { format!("injecting {}", names.join(", ")) }
}

/// A line for each route of a run.
pub fn show_routes(f: &mut fmt::Formatter<'_>, connected: &[Connected], passthrough: &[Host]) -> fmt::Result {
    for Connected { provider, connection } in connected {
        let urls: Vec<_> = provider.api_urls.iter().map(ToString::to_string).collect();
        writeln!(f, "route      {} -> {} ({connection})", urls.join(", "), provider.name)?;
    }
    passthrough.iter().try_for_each(|host| writeln!(f, "route      {host} -> passed through unopened"))
}

/// With rules a run carries TCP and lookups, nothing else, so a rule that allows more could not be kept.
pub fn policy(options: &RunOptions, config: &Config) -> Result<Policy, RunError> {
    let mut policy = config.policy.clone();
    policy.extend(options.policy.clone());
    match policy.names(Protocol::Udp).or_else(|| policy.names(Protocol::Icmp)) {
        Some(rule) => Err(RunError::RuleUnsupported(rule.to_string())),
        None => Ok(policy),
    }
}

/// What the data plane of either mode is made of.
pub struct DataPlane<'a> {
    pub id: &'a str,
    pub home: &'a Path,
    pub connected: &'a [Connected],
    pub passthrough: &'a [Host],
    pub policy: &'a Policy,
    pub upstream_ca: &'a [PathBuf],
    pub proxies: &'a Proxies,
    /// Whether this host's own addresses may be connected to.
    pub allow_host_addresses: bool,
}

impl DataPlane<'_> {
    /// With nothing opened that can wait for the first request.
    pub fn context(self, options: &RunOptions, config: &Config, authority: Authority) -> Result<proxy::Context, RunError> {
        let vault = Vault::open(self.home, config.key.clone());
        let routes = routes(self.home, self.connected, self.passthrough, &vault)?;
        let resolver = Stored::new(vault, self.connected.iter().map(|connected| (&connected.provider, &connected.connection)));
        let upstream = Upstream::new(upstream::Options {
            extra_roots: self.upstream_ca.to_vec(),
            connect_timeout: upstream::CONNECT_TIMEOUT,
            allow_host_addresses: self.allow_host_addresses,
            named_addresses: self.policy.named_addresses(),
            proxies: self.proxies.clone(),
        });
        Ok(proxy::Context {
            routes,
            policy: self.policy.clone(),
            resolver: Box::new(resolver),
            upstream,
            audit: audit_log(config, self.id)?,
            names: Arc::default(),
            notices: proxy::Notices::stderr(options.verbosity),
            placeholders: placeholders(self.connected),
            authority,
        })
    }
}

/// What is said before the start: providers with several connections and no default, then as much of the plan as is asked for. Its first line is the
/// headline.
pub fn announce(verbosity: u8, undecided: &[ProviderName], headline: &str, remarks: &[String], plan: &dyn fmt::Display) {
    if verbosity > 0 {
        for name in undecided {
            say(&format!("{name} has several connections and no default; not injected (hint: authsome set-default {name} CONNECTION)"));
        }
        say(headline);
        remarks.iter().for_each(|remark| say(remark));
    }
    if verbosity > 1 {
        plan.to_string().lines().skip(1).for_each(say);
    }
}

pub fn run_id() -> io::Result<String> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Every connected provider with its chosen connection, and those where none is the default; a name in `chosen` must exist.
pub fn connected(
    home: &Path,
    config: &Config,
    chosen: &[(ProviderName, ConnectionName)],
) -> Result<(Vec<Connected>, Vec<ProviderName>), RunError> {
    let (vault, catalog) = (Vault::open(home, config.key.clone()), Catalog::open(home)?);
    let existing = vault.connections()?;
    for choice @ (provider, connection) in chosen {
        if !catalog.names().contains(provider) {
            return Err(RunError::NoProvider(provider.clone()));
        }
        if !existing.contains(choice) {
            return Err(RunError::NoConnection(provider.clone(), connection.clone()));
        }
    }
    let mut of_provider = BTreeMap::<_, Vec<_>>::new();
    for (provider, connection) in existing {
        of_provider.entry(provider).or_default().push(connection);
    }
    let (mut connected, mut undecided) = (Vec::new(), Vec::new());
    for (name, connections) in of_provider {
        let explicit = chosen.iter().find(|(provider, _)| *provider == name).map(|(_, connection)| connection.clone());
        let Some(connection) = explicit.map_or_else(|| vault.default_among(&name, connections), |choice| Ok(Some(choice)))? else {
            undecided.push(name);
            continue;
        };
        let provider = catalog.find(&name, None)?.ok_or_else(|| RunError::NoProvider(name.clone()))?;
        connected.push(Connected { provider, connection });
    }
    Ok((connected, undecided))
}

/// Where execvp(3) finds the command, or the command as it is: to be looked for in vain by execvp, or because it is a path.
pub fn found(command: &OsStr, environment: &BTreeMap<OsString, OsString>) -> OsString {
    let directories = environment.get(OsStr::new("PATH")).filter(|_| !command.as_bytes().contains(&b'/'));
    let mut files = directories.into_iter().flat_map(env::split_paths).map(|directory| Path::new(".").join(directory).join(command));
    let runs = |file: &PathBuf| file.is_file() && access(file, AccessFlags::X_OK).is_ok();
    files.find(runs).map_or_else(|| command.to_owned(), PathBuf::into_os_string)
}

/// A value may be a key; this process is about to be copied.
pub fn wipe(value: OsString) {
    value.into_encoded_bytes().zeroize();
}

/// What the command finds in place of keys, to be known again; the usual one may also have come from elsewhere.
fn placeholders(connected: &[Connected]) -> LazyNeedles {
    let of_providers = connected.iter().map(|connected| connected.provider.placeholder.clone());
    let values: BTreeSet<String> = of_providers.chain([PLACEHOLDER.to_owned()]).collect();
    LazyNeedles::new(Box::new(move || Needles::new(values.iter().map(String::as_str))))
}

/// `environment` with what every run sets: placeholders, its marks, and under sudo the user's own names.
pub fn marked(
    mut environment: BTreeMap<OsString, OsString>,
    id: &str,
    identity: &Identity,
    connected: &[Connected],
) -> BTreeMap<OsString, OsString> {
    let mut set = |name: &str, value: &str| environment.insert(name.into(), value.into()).map_or((), wipe);
    if identity.groups.is_some() {
        for (name, value) in [("USER", identity.name.as_str()), ("LOGNAME", identity.name.as_str())] {
            set(name, value);
        }
    }
    for Connected { provider, .. } in connected {
        for name in provider.exports.iter().map(|export| &export.variable).chain(&provider.env_var) {
            set(name, &provider.placeholder);
        }
    }
    set("AUTHSOME_PROXY_MODE", "true");
    set("AUTHSOME_RUN_ID", id);
    if identity.groups.is_some() {
        environment.insert("HOME".into(), identity.home.clone().into());
        for name in ["SUDO_COMMAND", "SUDO_USER", "SUDO_UID", "SUDO_GID", "SUDO_HOME"] {
            environment.remove(OsStr::new(name));
        }
    }
    environment
}
