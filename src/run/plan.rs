//! Everything about a run that can be known, and refused, before anything is started.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::sys::signal::SigSet;
use zeroize::Zeroize;

use crate::{
    config::Config,
    credential::Needles,
    host::Host,
    provider::{Catalog, PLACEHOLDER, Provider, ProviderName},
    route::policy::{Policy, Protocol},
    upstream::{self, Proxies},
    vault::{self, ConnectionName, Vault},
};

use super::{
    RunError, harden,
    identity::Identity,
    mask,
    options::{EgressChoice, RunOptions},
    proxies, rules,
};

/// What the child's traffic other than the intercepted travels through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Egress {
    /// Every TCP connection is relayed by the supervisor; needs nothing of the host.
    Relay,
    /// A veth pair with NAT; the kernel carries what is not intercepted. Needs root.
    Veth,
}

/// A provider with the connection whose credential this run uses.
pub struct Connected {
    pub provider: Provider,
    pub connection: ConnectionName,
}

/// A validated run. Holds no secret of the vault's: the sandbox's first process is a copy of the process that made it.
pub struct Plan {
    pub id: String,
    pub home: PathBuf,
    pub identity: Identity,
    pub command: OsString,
    pub arguments: Vec<OsString>,
    pub cwd: PathBuf,
    /// Signals that were blocked when the user called us.
    pub signal_mask: SigSet,
    /// The whole of the command's environment.
    pub environment: BTreeMap<OsString, OsString>,
    pub egress: Egress,
    pub intercept: Vec<u16>,
    pub policy: Policy,
    pub expose: Vec<u16>,
    pub publish: Vec<u16>,
    pub connected: Vec<Connected>,
    /// Providers with several connections of which none is the default; nothing is injected for them.
    pub undecided: Vec<ProviderName>,
    pub passthrough: Vec<Host>,
    pub upstream_ca: Vec<PathBuf>,
    pub proxies: Proxies,
    pub survey: mask::Survey,
    pub defences: harden::Options,
}

impl Plan {
    pub fn new(options: &RunOptions, config: &Config) -> Result<Self, RunError> {
        let identity = Identity::resolve(options.user.as_deref(), &|name| env::var(name).ok())?;
        let egress = egress(options, &identity)?;
        // As the user: nothing of theirs is opened with root's rights.
        identity.acting(|| Self::gather(options, config, identity.clone(), egress))?
    }

    fn gather(options: &RunOptions, config: &Config, identity: Identity, egress: Egress) -> Result<Self, RunError> {
        let (command, arguments) = options.command.split_first().ok_or(RunError::NoCommand)?;
        let home = config.home.clone();
        if home.join(mask::MARKER).exists() {
            return Err(RunError::Nested);
        }
        vault::create_home(&home)?;
        let signal_mask = SigSet::thread_get_mask().map_err(|errno| RunError::System("read the signal mask", errno))?;
        upstream::check_roots(&options.upstream_ca)?;
        let proxies = proxies::chosen(&options.upstream)?;
        let policy = policy(options, config)?;
        let cwd = env::current_dir().map_err(RunError::Cwd)?;
        let id = run_id().map_err(RunError::RunId)?;
        let (connected, undecided) = connected(&home, config, &options.connections)?;
        let survey = mask::Survey::take(&mask::Request {
            authsome_home: &home,
            key_file: config.key.file(),
            user: mask::User { uid: identity.uid, gid: identity.gid, home: identity.home.clone() },
            run_id: &id,
            keep: &options.keep_paths,
            env: &|name| env::var_os(name),
        })?;
        survey.refuse_inherited(&cwd)?;
        let environment = environment(&id, &identity, &connected, &survey);
        Ok(Self {
            id,
            home,
            identity,
            command: command.clone(),
            arguments: arguments.to_vec(),
            cwd,
            signal_mask,
            environment,
            egress,
            intercept: intercept(options, &connected),
            policy,
            expose: options.expose.clone(),
            publish: options.publish.clone(),
            connected,
            undecided,
            passthrough: config.passthrough.clone(),
            upstream_ca: options.upstream_ca.clone(),
            proxies,
            survey,
            defences: options.defences.clone(),
        })
    }

    /// The intercepted ports; none means every port. Where there are rules nothing goes past them.
    pub fn intercepted(&self) -> Option<&[u16]> {
        (self.egress == Egress::Veth && self.policy.is_empty()).then_some(&self.intercept)
    }

    /// `transparent, relay uplink; injecting openai, stripe`
    pub fn headline(&self) -> String {
        format!("transparent, {} uplink{}; {}", self.egress, proxies::via(&self.proxies), injecting(&self.connected))
    }
}

/// `injecting openai, stripe`
pub(super) fn injecting(connected: &[Connected]) -> String {
    let names: Vec<_> = connected.iter().map(|connected| connected.provider.name.as_str()).collect();
    if names.is_empty() { "no provider connected".to_owned() } else { format!("injecting {}", names.join(", ")) }
}

/// A line for each route of a run.
pub(super) fn show_routes(f: &mut fmt::Formatter<'_>, connected: &[Connected], passthrough: &[Host]) -> fmt::Result {
    for Connected { provider, connection } in connected {
        let urls: Vec<_> = provider.api_urls.iter().map(ToString::to_string).collect();
        writeln!(f, "route      {} -> {} ({connection})", urls.join(", "), provider.name)?;
    }
    passthrough.iter().try_for_each(|host| writeln!(f, "route      {host} -> passed through unopened"))
}

/// Part of every transparent run; what can be lifted says by what.
const ALWAYS: [&str; 6] = [
    "lifted     hidden, private and read-only paths by --keep-path PATH (but for the vault), refused calls by --allow-kernel NAME",
    "dropped    every capability; set-user-ID programs are inert (no_new_privs)",
    "closed     file descriptors from 3 on",
    "closed     memory of authsome's own processes; the session's keyring",
    "removed    proxy variables and variables that name doors outside",
    "refused    the host's own, link-local and cloud metadata addresses, by --allow ADDRESS or --expose PORT lifted",
];

/// What `--dry-run` prints, and `-v` before the start: everything in force.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "run        {}", self.headline())?;
        writeln!(f, "command    {} as {}", Path::new(&self.command).display(), self.identity.describe())?;
        show_routes(f, &self.connected, &self.passthrough)?;
        write!(f, "{}{}{}", self.policy, self.survey, self.defences)?;
        ALWAYS.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        for line in rules::inside(self.intercepted()).to_string().lines() {
            writeln!(f, "rule       {line}")?;
        }
        Ok(())
    }
}

/// `auto` is veth for root and relay for everyone else; what was asked for works or is refused.
fn egress(options: &RunOptions, identity: &Identity) -> Result<Egress, RunError> {
    let root = identity.groups.is_some();
    match options.egress {
        EgressChoice::Auto if root => Ok(Egress::Veth),
        EgressChoice::Auto | EgressChoice::Relay => Ok(Egress::Relay),
        EgressChoice::Veth if root => Ok(Egress::Veth),
        EgressChoice::Veth => Err(RunError::EgressNeedsRoot("veth")),
        EgressChoice::Pasta => Err(RunError::EgressUnsupported("pasta")),
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Veth => "veth",
        })
    }
}

/// With rules a run carries TCP and lookups, nothing else, so a rule that allows more could not be kept.
pub(super) fn policy(options: &RunOptions, config: &Config) -> Result<Policy, RunError> {
    let mut policy = config.policy.clone();
    policy.extend(options.policy.clone());
    match policy.names(Protocol::Udp).or_else(|| policy.names(Protocol::Icmp)) {
        Some(rule) => Err(RunError::RuleUnsupported(rule.to_string())),
        None => Ok(policy),
    }
}

/// What is said of a provider with several connections and no default.
pub(super) fn undecided(name: &ProviderName) -> String {
    format!("{name} has several connections and no default; not injected (hint: authsome set-default {name} CONNECTION)")
}

pub(super) fn run_id() -> io::Result<String> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Every connected provider with its chosen connection, and those where none is the default; a name in `chosen` must exist.
pub(super) fn connected(
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

fn intercept(options: &RunOptions, connected: &[Connected]) -> Vec<u16> {
    let claimed = connected.iter().flat_map(|connected| connected.provider.api_urls.iter().map(|url| url.port()));
    let mut ports: Vec<u16> = rules::WEB.into_iter().chain(options.intercept_ports.iter().copied()).chain(claimed).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The user's environment, less what would leak or lead around, plus placeholders and the run's marks. Trust comes with the certificate.
fn environment(id: &str, identity: &Identity, connected: &[Connected], survey: &mask::Survey) -> BTreeMap<OsString, OsString> {
    let kept = env::vars_os().filter_map(|(name, value)| {
        if mask::is_proxy_variable(&name) || survey.removes_variable(&name, &value) {
            wipe(value);
            return None;
        }
        Some((name, value))
    });
    marked(kept.collect(), id, identity, connected)
}

/// A value may be a key; this process is about to be copied.
fn wipe(value: OsString) {
    value.into_encoded_bytes().zeroize();
}

/// What the command finds in place of keys, to be known again; the usual one may also have come from elsewhere.
pub(super) fn placeholders(connected: &[Connected]) -> Option<Arc<Needles>> {
    let of_providers = connected.iter().map(|connected| connected.provider.placeholder.as_str());
    Needles::new(of_providers.chain([PLACEHOLDER]).collect::<BTreeSet<_>>())
}

/// `environment` with what every run sets: placeholders, its marks, and under sudo the user's own names.
pub(super) fn marked(
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
            environment.remove(std::ffi::OsStr::new(name));
        }
    }
    environment
}
