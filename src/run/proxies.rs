//! What a run's outgoing connections go through, and where its password must not be read.

use super::{RunError, options::UpstreamChoice};
use crate::{
    proxy::process_tree::stat_field,
    upstream::{Options, Proxies, Upstream},
};
use std::{env, fs, io, os::unix::fs::FileExt, time::Duration};
use tokio::runtime;

/// Whoever asks is waiting.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// As the user chose.
pub fn chosen(choice: &UpstreamChoice) -> Result<Proxies, RunError> {
    Ok(match choice {
        UpstreamChoice::Env => Proxies::from_env(&|name| env::var(name).ok())?,
        UpstreamChoice::None => Proxies::default(),
        UpstreamChoice::Proxy { setting, url } => Proxies::all(setting, url)?,
    })
}

/// What runs go through by default, as text, if it can be reached.
pub fn probe(choice: &UpstreamChoice) -> Result<Option<String>, RunError> {
    let proxies = chosen(choice)?;
    if proxies.is_empty() {
        return Ok(None);
    }
    let upstream = Upstream::new(Options {
        extra_roots: Vec::new(),
        connect_timeout: PROBE_TIMEOUT,
        allow_host_addresses: true,
        named_addresses: Vec::new(),
        proxies: proxies.clone(),
    });
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(upstream.probe_proxies())?;
    Ok(Some(proxies.to_string()))
}

/// ` via proxy.acme.test:3128`, or nothing.
pub fn via(proxies: &Proxies) -> String {
    if proxies.is_empty() { String::new() } else { format!(" via {proxies}") }
}

/// Overwrites the login of a proxy's URL wherever it is among our arguments. Everyone may read those, in the sandbox too: its first process has them
/// from us (proc_pid_cmdline(5)). While we still are who we were started as: whoever changes the user may not write to its own memory's file.
pub fn conceal(choice: &UpstreamChoice) -> Result<(), RunError> {
    match choice {
        UpstreamChoice::Proxy { url, .. } => conceal_login(url).map_err(RunError::Conceal),
        UpstreamChoice::Env | UpstreamChoice::None => Ok(()),
    }
}

fn conceal_login(url: &str) -> io::Result<()> {
    let Some((before, _)) = url.rsplit_once('@') else { return Ok(()) };
    let login = before.rsplit_once("//").map_or(before, |(_, login)| login).as_bytes();
    let arguments = fs::read("/proc/self/cmdline")?;
    let found: Vec<usize> =
        if login.is_empty() { Vec::new() } else { (0..arguments.len()).filter(|at| arguments[*at..].starts_with(login)).collect() };
    if found.is_empty() {
        return Ok(());
    }
    let memory = fs::File::options().write(true).open("/proc/self/mem")?;
    let start = arguments_start()?;
    found.into_iter().try_for_each(|at| memory.write_all_at(&vec![b'*'; login.len()], start + at as u64))
}

/// Where our arguments are in memory: `arg_start`, field 48 (proc_pid_stat(5)).
fn arguments_start() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    stat_field(&stat, 48)
        .and_then(|text| text.parse().ok())
        .filter(|start| *start != 0)
        .ok_or_else(|| io::Error::other("no address in /proc/self/stat"))
}
