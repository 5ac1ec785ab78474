//! Everything about a run that can be known, and refused, before anything is started.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use netns::{
    link::{self, IpNet},
    ruleset::Ruleset,
};
use nix::{
    sys::signal::SigSet,
    unistd::{AccessFlags, access},
};

use crate::{
    config::Config,
    defence::Defence,
    host::Host,
    provider::ProviderName,
    route::policy::Policy,
    upstream::{self, Proxies},
    vault,
};

use super::{
    MARKER, RunError,
    common::{Connected, connected, injecting, marked, policy, run_id, show_routes, wipe},
    harden,
    identity::Identity,
    mask,
    options::{EgressChoice, RunOptions},
    proxies, rules,
    variables::is_proxy_variable,
};

/// RFC 5771, RFC 4291 §2.7, and the limited broadcast (RFC 919 §7).
const MULTICAST: [(IpAddr, u8); 3] = [
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
];

/// What the child's traffic other than the intercepted travels through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Egress {
    /// Every TCP connection is relayed by the supervisor; needs nothing of the host.
    Relay,
    /// A veth pair with NAT; the kernel carries what is not intercepted. Needs root.
    Veth,
    /// TCP as with [`Self::Relay`]; UDP and ICMP by this program, pasta(1).
    Pasta(PathBuf),
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
    /// Where the uplink may not be used for, as far as the namespace's own rules say it.
    pub barred: Vec<IpNet>,
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
        refuse_own_ports(options)?;
        let home = config.home.clone();
        if home.join(MARKER).exists() {
            return Err(RunError::Nested);
        }
        vault::create_home(&home)?;
        let signal_mask = SigSet::thread_get_mask().map_err(|errno| RunError::System("read the signal mask", errno))?;
        upstream::check_roots(&options.upstream_ca)?;
        let proxies = proxies::chosen(&options.upstream)?;
        let policy = policy(options, config)?;
        let barred = barred(&egress, &policy)?;
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
            barred,
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
            defences: harden::Options { allow: options.allow_kernel.clone() },
        })
    }

    /// The namespace's rules. Where the user has rules of their own nothing goes past the proxy.
    pub fn rules(&self) -> Ruleset {
        match self.egress {
            Egress::Veth if self.policy.is_empty() => rules::inside(Some(&self.intercept), Some(&self.barred)),
            Egress::Pasta(_) if self.policy.is_empty() => rules::inside(None, Some(&self.barred)),
            _ => rules::inside(None, None),
        }
    }

    /// `transparent, relay uplink; injecting openai, stripe`
    pub fn headline(&self) -> String {
        format!("transparent, {} uplink{}; {}", self.egress, proxies::via(&self.proxies), injecting(&self.connected))
    }
}

/// Part of every transparent run; what can be lifted says by what.
const ALWAYS: [&str; 7] = [
    "lifted     hidden, private and read-only paths by --keep-path PATH (but for the vault), refused calls by --allow-kernel NAME",
    "dropped    every capability; set-user-ID programs are inert (no_new_privs)",
    "closed     file descriptors from 3 on",
    "closed     memory of authsome's own processes; the session's keyring",
    "closed     shared memory, semaphores and message queues (System V, POSIX) of processes outside",
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
        for line in self.rules().to_string().lines() {
            writeln!(f, "rule       {line}")?;
        }
        Ok(())
    }
}

/// Our own listeners are on the same addresses as what is exposed, and what is published would lead to them.
fn refuse_own_ports(options: &RunOptions) -> Result<(), RunError> {
    for (flag, ports) in [("--expose", &options.expose), ("--publish", &options.publish)] {
        if let Some(port) = ports.iter().find(|port| [rules::LISTENER, rules::DNS].contains(port)) {
            return Err(RunError::OwnPort(flag, *port));
        }
    }
    Ok(())
}

/// `auto` is veth for root and relay for everyone else; what was asked for works or is refused.
fn egress(options: &RunOptions, identity: &Identity) -> Result<Egress, RunError> {
    let root = identity.groups.is_some();
    match options.egress {
        EgressChoice::Auto if root => Ok(Egress::Veth),
        EgressChoice::Auto | EgressChoice::Relay => Ok(Egress::Relay),
        EgressChoice::Veth if root => Ok(Egress::Veth),
        EgressChoice::Veth => Err(RunError::EgressNeedsRoot("veth")),
        EgressChoice::Pasta if root => Err(RunError::PastaAsRoot),
        EgressChoice::Pasta => in_path("pasta").map(Egress::Pasta).ok_or(RunError::NoPasta),
    }
}

/// The program that a shell would run.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| access(file, AccessFlags::X_OK).is_ok() && file.is_file())
}

/// pasta sends from the host's own sockets, which no rule of the host's tells from the user's: what the proxy refuses to dial, and multicast, which
/// services of the host hear, is refused inside. With the veth the host's side does that.
fn barred(egress: &Egress, policy: &Policy) -> Result<Vec<IpNet>, RunError> {
    if !matches!(egress, Egress::Pasta(_)) {
        return Ok(Vec::new());
    }
    if !policy.is_empty() {
        return Err(RunError::PastaWithRules);
    }
    if !Defence::DialRule.active() {
        return Ok(Vec::new());
    }
    let networks = upstream::forbidden_networks().into_iter().chain(MULTICAST).map(|(addr, prefix)| IpNet { addr, prefix });
    let mut barred: Vec<_> = networks.chain(link::addresses()?.into_iter().map(IpNet::from)).collect();
    barred.sort_unstable();
    barred.dedup();
    Ok(barred)
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Veth => "veth",
            Self::Pasta(_) => "pasta",
        })
    }
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
        if is_proxy_variable(&name) || survey.removes_variable(&name, &value) {
            wipe(value);
            return None;
        }
        Some((name, value))
    });
    marked(kept.collect(), id, identity, connected)
}
