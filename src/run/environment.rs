//! `authsome run` without `--transparent`: the command is told of the proxy by variables, and nothing keeps it from going around.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::{CStr, CString, OsStr, OsString},
    fmt,
    io::{self, Write},
    iter,
    net::{Ipv4Addr, TcpListener},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp},
    sys::{
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    runtime,
    sync::mpsc::{self, UnboundedReceiver},
};

use super::{
    RunError, ca,
    common::{self, Connected, DataPlane, GRACE, LAST_BYTES},
    directory::Directory,
    identity::Identity,
    options::RunOptions,
    process, proxies, settle,
    signals::{self, Sent, Signals, Terminal},
    trust::{self, Trust},
    variables,
};
use crate::{
    config::Config,
    host::Host,
    provider::ProviderName,
    proxy::{self, process_tree, tls::Authority},
    route::{ApiUrl, policy::Policy},
    upstream::{self, NoProxy, Proxies},
    vault,
};

/// How often what is left is looked for again after SIGKILL: a process may fork while the others are being killed.
const AGAIN: Duration = Duration::from_millis(100);
/// After so many times what still lives is out of our reach (another user's, by set-user-ID) and is left.
const ATTEMPTS: u32 = 20;

/// Reach the proxy itself, or anything else of this machine, directly.
const NO_PROXY: [&str; 3] = ["127.0.0.1", "localhost", "::1"];
/// Both forms of each are read somewhere.
const PROXY_VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];

/// What is known before anything is started.
struct Plan {
    id: String,
    home: PathBuf,
    identity: Identity,
    command: OsString,
    arguments: Vec<OsString>,
    connected: Vec<Connected>,
    undecided: Vec<ProviderName>,
    policy: Policy,
    passthrough: Vec<Host>,
    upstream_ca: Vec<PathBuf>,
    proxies: Proxies,
}

/// `authsome run` in the environment mode: the command's exit code.
pub fn environment(options: &RunOptions, config: &Config) -> Result<u8, RunError> {
    proxies::conceal(&options.upstream)?;
    let identity = Identity::resolve(options.user.as_deref(), &|name| env::var(name).ok())?;
    if identity.is_root() {
        // The command has root's capabilities again once it is executed (capabilities(7)), and whoever has fewer may not look at its sockets (ptrace(2)).
        identity.assume().map_err(system("become root with root's groups alone"))?;
    } else {
        // There is no namespace to make, so no right of root's is needed.
        identity.assume_keeping(false)?;
    }
    let plan = Plan::new(options, config, identity)?;
    if options.dry_run {
        let _ = io::stdout().write_all(plan.to_string().as_bytes());
        return Ok(0);
    }
    // The core limit is the command's and stays as it is.
    process::seal_memory().map_err(system("seal the supervisor's memory"))?;
    process::adopt_orphans().map_err(system("become a subreaper"))?;
    let mask = SigSet::thread_get_mask().map_err(system("read the signal mask"))?;
    let signals = Signals::block().map_err(system("block signals"))?;
    let _terminal = Terminal::save();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(RunError::Listen)?;
    let port = listener.local_addr().map_err(RunError::Listen)?.port();
    let directory = Directory::create().map_err(RunError::Directory)?;
    let authority = ca::open(&plan.home)?;
    let run = proxy::Run::of_this_process(plan.identity.uid).map_err(RunError::RunId)?;
    let proxy = format!("http://{}127.0.0.1:{port}", run.user_info());
    let environment = plan.environment(&proxy, directory.path(), &authority)?;
    let context = Arc::new(plan.data_plane().context(options, config, authority)?);
    common::announce(options.verbosity, &plan.undecided, &plan.headline(), &plan.gone_around(), &plan);
    let command = plan.start(&environment, &mask)?;
    let served = serve(command, listener, run, context.clone(), signals, config.audit_required);
    if served.is_err() {
        // Nobody serves it any more.
        signal_all(&[Signal::SIGKILL]);
    }
    settle(served, &context.audit, config.audit_required)
}

fn system(what: &'static str) -> impl Fn(Errno) -> RunError {
    move |errno| RunError::System(what, errno)
}

impl Plan {
    fn new(options: &RunOptions, config: &Config, identity: Identity) -> Result<Self, RunError> {
        let (command, arguments) = options.command.split_first().ok_or(RunError::NoCommand)?;
        let home = config.home.clone();
        upstream::check_roots(&options.upstream_ca)?;
        vault::create_home(&home)?;
        let (connected, undecided) = common::connected(&home, config, &options.connections)?;
        Ok(Self {
            id: common::run_id().map_err(RunError::RunId)?,
            connected,
            undecided,
            policy: common::policy(options, config)?,
            home,
            identity,
            command: command.clone(),
            arguments: arguments.to_vec(),
            passthrough: config.passthrough.clone(),
            upstream_ca: options.upstream_ca.clone(),
            proxies: proxies::chosen(&options.upstream)?,
        })
    }

    /// The whole of the command's environment.
    fn environment(&self, proxy: &str, directory: &Path, authority: &Authority) -> Result<BTreeMap<OsString, OsString>, RunError> {
        let kept = env::vars_os().filter(|(name, _)| !opens_the_vault(name) && !variables::is_proxy_variable(name));
        let mut environment = common::marked(kept.collect(), &self.id, &self.identity, &self.connected);
        environment.extend(PROXY_VARIABLES.map(|name| (name.into(), proxy.into())));
        let direct = no_proxy(no_proxy_of_user().as_deref());
        environment.extend(["NO_PROXY", "no_proxy"].map(|name| (name.into(), direct.clone())));
        // Node heeds the variables only when told to.
        environment.insert("NODE_USE_ENV_PROXY".into(), "1".into());
        let authority = trust::Authority { pem: authority.certificate_pem(), common_name: authority.common_name() };
        let trust = Trust::write(directory, authority, &|name| env::var_os(name)).map_err(RunError::Trust)?;
        environment.extend(trust.variables().iter().map(|(name, value)| ((*name).into(), value.clone())));
        Ok(environment)
    }

    fn data_plane(&self) -> DataPlane<'_> {
        DataPlane {
            id: &self.id,
            home: &self.home,
            connected: &self.connected,
            passthrough: &self.passthrough,
            policy: &self.policy,
            upstream_ca: &self.upstream_ca,
            proxies: &self.proxies,
            // The command is on this host itself and reaches its addresses without us.
            allow_host_addresses: true,
        }
    }

    /// `environment, HTTPS_PROXY set; injecting openai, stripe`
    fn headline(&self) -> String {
        format!("environment, HTTPS_PROXY set{}; {}", proxies::via(&self.proxies), common::injecting(&self.connected))
    }

    /// What the user's NO_PROXY keeps from us although it is a connected provider's.
    fn gone_around(&self) -> Vec<String> {
        let direct = NoProxy::parse(&no_proxy_of_user().unwrap_or_default().to_string_lossy());
        let targets = self.connected.iter().flat_map(|connected| &connected.provider.api_urls).filter_map(ApiUrl::target);
        let covered: BTreeSet<_> = targets.filter(|target| direct.covers(target)).map(|target| target.host).collect();
        let told = |host| format!("{host}: NO_PROXY has clients go around authsome, so nothing is injected there");
        covered.iter().map(told).collect()
    }

    /// Starts the command in our process group. It gets the signal mask that we were given, while ours stays: a signal that came in between
    /// would end us and leave it behind (std's `Command` passes the caller's mask on). Rust's own start ignores SIGPIPE; it must not.
    fn start(&self, environment: &BTreeMap<OsString, OsString>, mask: &SigSet) -> Result<Pid, RunError> {
        let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(|_| RunError::CannotRun(libc::EINVAL));
        let variables: Vec<CString> =
            environment.iter().map(|(name, value)| text(&[name.as_os_str(), value].join(OsStr::new("=")))).collect::<Result<_, _>>()?;
        let arguments: Vec<CString> =
            iter::once(&self.command).chain(&self.arguments).map(|argument| text(argument)).collect::<Result<_, _>>()?;
        let spawn = |program: &CStr, arguments: &[CString]| {
            let mut attributes = PosixSpawnAttr::init()?;
            attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
            attributes.set_sigmask(mask)?;
            attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
            posix_spawnp(program, &PosixSpawnFileActions::init()?, &attributes, arguments, &variables)
        };
        let command = text(&self.command)?;
        let started = match spawn(&command, &arguments) {
            // As execvp(3) does: a file that is executable but has no known format is a shell script.
            Err(Errno::ENOEXEC) => {
                let script = text(&common::found(&self.command, environment))?;
                spawn(c"/bin/sh", &[&[c"sh".to_owned(), script], &arguments[1..]].concat())
            }
            result => result,
        };
        started.map_err(|errno| RunError::CannotRun(errno as i32))
    }
}

/// What `--dry-run` prints: everything that would be in force.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "run        {}", self.headline())?;
        writeln!(f, "command    {} as {}", Path::new(&self.command).display(), self.identity.describe())?;
        common::show_routes(f, &self.connected, &self.passthrough)?;
        write!(f, "{}", self.policy)?;
        writeln!(f, "authority  {}", ca::certificate_path(&self.home).display())
    }
}

fn opens_the_vault(name: &OsStr) -> bool {
    [&b"AUTHSOME_MASTER_KEY"[..], b"AUTHSOME_IDENTITY"].iter().any(|start| name.as_bytes().starts_with(start))
}

fn no_proxy_of_user() -> Option<OsString> {
    ["no_proxy", "NO_PROXY"].map(env::var_os).into_iter().flatten().find(|value| !value.is_empty())
}

/// The user's hosts and this machine. Where those are all there are, nothing is added: curl takes `*` for that only when it stands alone.
fn no_proxy(of_user: Option<&OsStr>) -> OsString {
    let mut value = of_user.unwrap_or_default().to_owned();
    let text = value.to_string_lossy().into_owned();
    let known: Vec<&str> = upstream::no_proxy_entries(&text).collect();
    for host in NO_PROXY.into_iter().filter(|host| !known.contains(host) && !known.contains(&"*")) {
        if !value.is_empty() {
            value.push(",");
        }
        value.push(host);
    }
    value
}

/// What became of a process below us.
enum News {
    Stopped,
    Ended(u8),
    /// There is none any more.
    Alone,
}

/// Serves until the command has ended, then ends what it left; its exit code, 128+N for a signal.
fn serve(
    command: Pid,
    listener: TcpListener,
    run: proxy::Run,
    context: Arc<proxy::Context>,
    signals: Signals,
    audited: bool,
) -> Result<u8, RunError> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    let result = runtime.block_on(async {
        let mut signals = signals.watch().map_err(RunError::Runtime)?;
        let mut news = watch(command).map_err(RunError::Runtime)?;
        let followed = tokio::select! {
            () = context.audit.broken(), if audited => {
                let _ = kill(command, Signal::SIGTERM);
                Err(RunError::AuditRequired)
            }
            result = proxy::explicit::serve(listener, run, context.clone()) => {
                let _ = kill(command, Signal::SIGTERM);
                Err(RunError::Stopped("the proxy", result.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())))
            }
            code = follow(command, &mut signals, &mut news) => code,
        };
        end_leftovers(&mut news).await;
        // What was said last is on its way, and recorded.
        let _ = tokio::time::timeout(LAST_BYTES, context.audit.quiet()).await;
        followed
    });
    runtime.shutdown_background();
    result
}

/// Reaps on a thread of its own until no process is left below us.
fn watch(command: Pid) -> io::Result<UnboundedReceiver<News>> {
    let (tell, news) = mpsc::unbounded_channel();
    let reap = move || {
        loop {
            let heard = match waitpid(None, Some(WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == command => News::Ended(code as u8),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => News::Ended((128 + signal as i32) as u8),
                Ok(WaitStatus::Stopped(pid, _)) if pid == command => News::Stopped,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => News::Alone,
            };
            let last = matches!(heard, News::Alone);
            if tell.send(heard).is_err() || last {
                return;
            }
        }
    };
    thread::Builder::new().name("reaper".to_owned()).spawn(reap)?;
    Ok(news)
}

/// Passes signals on, stops and goes on with the command, until it has ended.
async fn follow(command: Pid, signals: &mut Sent, news: &mut UnboundedReceiver<News>) -> Result<u8, RunError> {
    loop {
        tokio::select! {
            signal = signals.next() => {
                // It may have ended in between.
                let signal = Signal::try_from(signal.map_err(RunError::Runtime)?);
                let _ = kill(command, signal.map_err(system("pass a signal on"))?);
            }
            heard = news.recv() => match heard {
                Some(News::Ended(code)) => return Ok(code),
                Some(News::Stopped) => {
                    signals::stop_self().map_err(system("stop"))?;
                    let _ = kill(command, Signal::SIGCONT);
                }
                Some(News::Alone) | None => return Err(RunError::InitGone),
            },
        }
    }
}

/// The run ends with its command: SIGTERM for what it left, and after [`GRACE`] SIGKILL.
async fn end_leftovers(news: &mut UnboundedReceiver<News>) {
    if signal_all(&[Signal::SIGTERM, Signal::SIGCONT]) == 0 || alone_within(news, GRACE).await {
        return;
    }
    for _ in 0..ATTEMPTS {
        if signal_all(&[Signal::SIGKILL]) == 0 || alone_within(news, AGAIN).await {
            return;
        }
    }
}

/// How many processes there are below us.
fn signal_all(signals: &[Signal]) -> usize {
    let below = process_tree::descendants(Pid::this()).unwrap_or_default();
    for (pid, signal) in below.iter().flat_map(|pid| signals.iter().map(move |signal| (*pid, *signal))) {
        let _ = kill(pid, signal);
    }
    below.len()
}

async fn alone_within(news: &mut UnboundedReceiver<News>, time: Duration) -> bool {
    let alone = async { while !matches!(news.recv().await, Some(News::Alone) | None) {} };
    tokio::time::timeout(time, alone).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_merged() {
        for (of_user, merged) in [
            (None, "127.0.0.1,localhost,::1"),
            (Some(""), "127.0.0.1,localhost,::1"),
            (Some("corp.test, localhost"), "corp.test, localhost,127.0.0.1,::1"),
            (Some("127.0.0.1,localhost,::1"), "127.0.0.1,localhost,::1"),
            (Some("corp.test localhost"), "corp.test localhost,127.0.0.1,::1"),
            (Some("localhost:8443,[::1]:443,.corp.test:443"), "localhost:8443,[::1]:443,.corp.test:443,127.0.0.1,localhost,::1"),
            (Some("*"), "*"),
        ] {
            assert_eq!(no_proxy(of_user.map(OsStr::new)), merged, "{of_user:?}");
        }
    }

    #[test]
    fn what_opens_the_vault() {
        for (name, opens) in
            [("AUTHSOME_MASTER_KEY", true), ("AUTHSOME_MASTER_KEY_FILE", true), ("AUTHSOME_IDENTITY", true), ("AUTHSOME_HOME", false)]
        {
            assert_eq!(opens_the_vault(name.as_ref()), opens, "{name}");
        }
    }
}
