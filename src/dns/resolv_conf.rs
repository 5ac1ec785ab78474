//! The user's resolvers: resolv.conf(5), read again whenever it changes.

use crate::host::Host;
use std::{
    fmt,
    fs::Metadata,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// As the C library has them (resolv.conf(5)): at most three servers, 5 s for each, two rounds; at most 30 s and five rounds.
const MAX_SERVERS: usize = 3;
const TIMEOUT: u64 = 5;
const MAX_TIMEOUT: u64 = 30;
const ATTEMPTS: u64 = 2;
const MAX_ATTEMPTS: u64 = 5;

/// The resolvers of the user's resolv.conf.
#[derive(Clone)]
pub struct Upstreams {
    file: Arc<File>,
    permit: Option<Permit>,
    elsewhere: Option<Permit>,
}

type Permit = Arc<dyn Fn(&Host) -> bool + Send + Sync>;

struct File {
    path: PathBuf,
    current: Mutex<(Option<Stamp>, Arc<ResolvConf>)>,
    turn: AtomicUsize,
}

/// What tells one version of the file from another.
type Stamp = (u64, i64, i64, u64);

/// What the file says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub servers: Vec<SocketAddr>,
    /// For one server's answer.
    pub timeout: Duration,
    /// Rounds over all servers.
    pub attempts: u64,
    /// Whether each query starts with another server.
    pub rotate: bool,
    /// Domains that clients try behind a name, lower case.
    pub search: Vec<String>,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstreams({})", self.file.path.display())
    }
}

impl Upstreams {
    /// Reads /etc/resolv.conf (following symlinks), in the supervisor's own mount namespace.
    pub fn system() -> io::Result<Self> {
        Self::read(Path::new("/etc/resolv.conf"))
    }

    /// The same resolvers, but only names that `permit` wants are ever asked of them; the others do not exist.
    pub fn permitting(self, permit: impl Fn(&Host) -> bool + Send + Sync + 'static) -> Self {
        Self { permit: Some(Arc::new(permit)), ..self }
    }

    /// The same resolvers; names that they do not know and `elsewhere` wants get an address made up here.
    pub fn known_by_others(self, elsewhere: impl Fn(&Host) -> bool + Send + Sync + 'static) -> Self {
        Self { elsewhere: Some(Arc::new(elsewhere)), ..self }
    }

    /// Whether a proxy may know this name. A search list makes clients ask for names that nobody meant (`api.acme.test.corp.test`, resolv.conf(5)
    /// on ndots): those are taken to exist only where one label stands before the domain.
    pub(super) fn known_elsewhere(&self, host: &Host) -> bool {
        let Some(elsewhere) = &self.elsewhere else { return false };
        let Host::Name(name) = host else { return false };
        let before = |domain: &String| Some(name.as_str().strip_suffix(domain.as_str())?.strip_suffix('.')?.contains('.'));
        let invented = self.current().search.iter().filter_map(before).any(|invented| invented);
        !invented && elsewhere(host)
    }

    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let current = Mutex::new((stamp(path)?, Arc::new(load(path)?)));
        Ok(Self { file: Arc::new(File { path: path.to_owned(), current, turn: AtomicUsize::new(0) }), permit: None, elsewhere: None })
    }

    /// Servers of a test, wherever they listen.
    #[cfg(test)]
    pub(super) fn fixed(conf: ResolvConf) -> Self {
        let current = Mutex::new((None, Arc::new(conf)));
        Self { file: Arc::new(File { path: PathBuf::new(), current, turn: AtomicUsize::new(0) }), permit: None, elsewhere: None }
    }

    /// Whether this name may be looked up; None is a name that no rule could match.
    pub(super) fn permits(&self, host: Option<Host>) -> bool {
        self.permit.as_ref().is_none_or(|permit| host.is_some_and(|host| permit(&host)))
    }

    /// What the file says now. If it cannot be read just now, what it said last.
    pub(super) fn current(&self) -> Arc<ResolvConf> {
        let mut current = self.file.current.lock().unwrap_or_else(PoisonError::into_inner);
        let read = stamp(&self.file.path)
            .and_then(|stamp| if stamp == current.0 { Ok(None) } else { Ok(Some((stamp, Arc::new(load(&self.file.path)?)))) });
        match read {
            Ok(Some(new)) => *current = new,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, path = %self.file.path.display(), "resolvers"),
        }
        current.1.clone()
    }

    /// Which server begins.
    pub(super) fn first(&self, conf: &ResolvConf) -> usize {
        if conf.rotate { self.file.turn.fetch_add(1, Ordering::Relaxed) } else { 0 }
    }
}

fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    let stamp = |metadata: Metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len());
    absent_is_none(std::fs::metadata(path)).map(|metadata| metadata.map(stamp))
}

/// Without a file the rules of an empty one hold.
fn load(path: &Path) -> io::Result<ResolvConf> {
    absent_is_none(std::fs::read(path)).map(|text| parse(&String::from_utf8_lossy(&text.unwrap_or_default())))
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes what the C library takes and, like it, passes over the rest. Without a server it is the one on this host.
pub(crate) fn parse(text: &str) -> ResolvConf {
    let (mut timeout, mut attempts, mut rotate) = (TIMEOUT, ATTEMPTS, false);
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().and_then(server)),
            Some("search" | "domain") => {
                search = words.map(|domain| domain.trim_matches('.').to_ascii_lowercase()).filter(|domain| !domain.is_empty()).collect();
            }
            Some("options") => {
                for option in words {
                    match option.split_once(':') {
                        Some(("timeout", seconds)) => timeout = seconds.parse().unwrap_or(timeout),
                        Some(("attempts", count)) => attempts = count.parse().unwrap_or(attempts),
                        _ => rotate |= option == "rotate",
                    }
                }
            }
            _ => {}
        }
    }
    servers.truncate(MAX_SERVERS);
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    let (timeout, attempts) = (timeout.clamp(1, MAX_TIMEOUT), attempts.clamp(1, MAX_ATTEMPTS));
    ResolvConf { servers, timeout: Duration::from_secs(timeout), attempts, rotate, search }
}

/// DNS's (RFC 1035 §4.2).
const PORT: u16 = 53;

/// `203.0.113.1`, `2001:db8::1`, `fe80::1%eth0`, `fe80::1%2` (RFC 4007 §11).
fn server(text: &str) -> Option<SocketAddr> {
    let Some((addr, zone)) = text.split_once('%') else {
        return text.parse::<IpAddr>().ok().map(|ip| (ip, PORT).into());
    };
    let scope = zone.parse().ok().or_else(|| nix::net::if_::if_nametoindex(zone).ok())?;
    Some(SocketAddrV6::new(addr.parse::<Ipv6Addr>().ok()?, PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(servers: &[&str], timeout: u64, attempts: u64, rotate: bool) -> ResolvConf {
        let servers = servers.iter().map(|text| text.parse().unwrap()).collect();
        ResolvConf { servers, timeout: Duration::from_secs(timeout), attempts, rotate, search: Vec::new() }
    }

    #[test]
    fn files_as_the_c_library_reads_them() {
        for (text, want) in [
            ("", conf(&["127.0.0.1:53"], 5, 2, false)),
            (
                "search Acme.test corp.test.\nnameserver\t127.0.0.53\noptions edns0 trust-ad\n",
                ResolvConf { search: vec!["acme.test".to_owned(), "corp.test".to_owned()], ..conf(&["127.0.0.53:53"], 5, 2, false) },
            ),
            ("# c\n; c\nnameserver 203.0.113.1 # x\n nameserver 2001:db8::1", conf(&["203.0.113.1:53", "[2001:db8::1]:53"], 5, 2, false)),
            ("nameserver fe80::1%7\nnameserver fe80::1%lo", conf(&["[fe80::1%7]:53", "[fe80::1%1]:53"], 5, 2, false)),
            ("nameserver x\nnameserver 203.0.113.1%1\nnameserver\nnameserver fe80::1%nosuchlink", conf(&["127.0.0.1:53"], 5, 2, false)),
            (
                "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\noptions timeout:1 attempts:3 rotate",
                conf(&["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"], 1, 3, true),
            ),
            ("options timeout:0 attempts:99\noptions timeout:x", conf(&["127.0.0.1:53"], 1, 5, false)),
            ("options timeout:900", conf(&["127.0.0.1:53"], 30, 2, false)),
        ] {
            assert_eq!(parse(text), want, "{text:?}");
        }
    }

    #[test]
    fn names_that_a_search_list_makes_are_nobodys() {
        let conf = parse("search corp.test\n");
        let upstreams = Upstreams::fixed(conf).known_by_others(|host| host.to_string() != "direct.test");
        let known = |host: &str| upstreams.known_elsewhere(&host.parse().unwrap());
        assert!(known("api.acme.test") && known("wiki.corp.test") && known("corp.test") && known("api.mycorp.test"));
        assert!(!known("api.acme.test.corp.test") && !known("direct.test") && !known("203.0.113.1"));
    }

    #[test]
    fn a_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("resolv.conf"), directory.path().join("new"));
        let upstreams = Upstreams::read(&path).unwrap();
        assert_eq!(*upstreams.current(), conf(&["127.0.0.1:53"], 5, 2, false));
        std::fs::write(&path, "nameserver 192.0.2.1").unwrap();
        assert_eq!(*upstreams.current(), conf(&["192.0.2.1:53"], 5, 2, false));
        std::fs::write(&other, "nameserver 192.0.2.2").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(*upstreams.current(), conf(&["192.0.2.2:53"], 5, 2, false));
        assert_eq!((upstreams.first(&upstreams.current()), upstreams.first(&upstreams.current())), (0, 0));
        std::fs::write(&path, "options rotate").unwrap();
        assert_eq!((upstreams.first(&upstreams.current()), upstreams.first(&upstreams.current())), (0, 1));
    }
}
