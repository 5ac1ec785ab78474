//! Whether a connection to the explicit proxy comes from this run: by the kernel's list of sockets and the tree of processes.
//!
//! The environment mode has no namespace, so anybody on this machine may connect. Only the run's own processes get anything injected.
//! (Processes of the same user are no boundary all the same: one may trace another of the run.)

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    sync::{Mutex, PoisonError},
};

use http::HeaderValue;
use nix::unistd::{Pid, Uid};

/// Who may have credentials injected: processes of `uid` that descend from `supervisor`, which is a subreaper, so that none gets lost.
#[derive(Debug)]
pub struct Run {
    uid: Uid,
    supervisor: Pid,
    /// Processes of the run that have connected before, with the time of their start: what descends from the supervisor does so to its end,
    /// but its number may be given to another then.
    known: Mutex<BTreeMap<Pid, u64>>,
}

impl Run {
    /// What a client is asked to show (RFC 9110 §11.7.1): nothing.
    pub const CHALLENGE: Option<&str> = None;

    pub fn new(uid: Uid, supervisor: Pid) -> Self {
        Self { uid, supervisor, known: Mutex::default() }
    }

    pub fn of_this_process(uid: Uid) -> io::Result<Self> {
        Ok(Self::new(uid, Pid::this()))
    }

    /// What the proxy's URL has before its host: the system tells whose a socket is.
    pub fn user_info(&self) -> String {
        String::new()
    }

    /// Whether the socket that is bound to `client` and connected to `proxy` belongs to the run. Whatever cannot be found out is a no.
    /// Blocks: it reads /proc, all of it for a process that is not known yet.
    pub fn owns(&self, client: SocketAddr, proxy: SocketAddr, _shown: Option<&HeaderValue>) -> bool {
        self.holder(client, proxy).unwrap_or(false)
    }

    fn holder(&self, client: SocketAddr, proxy: SocketAddr) -> io::Result<bool> {
        let Some(socket) = socket(client, proxy)? else { return Ok(false) };
        if socket.uid != self.uid.as_raw() {
            return Ok(false);
        }
        let link = format!("socket:[{}]", socket.inode);
        let holds = |pid: &Pid| is_of(*pid, self.uid) && holds(*pid, &link);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|pid, started| start_time(*pid) == Some(*started));
        if known.keys().any(holds) {
            return Ok(true);
        }
        let started = descendants(self.supervisor)?.into_iter().find(holds).and_then(|pid| Some((pid, start_time(pid)?)));
        known.extend(started);
        Ok(started.is_some())
    }
}

/// Every process below `ancestor`, itself not included.
pub fn descendants(ancestor: Pid) -> io::Result<BTreeSet<Pid>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // It may have ended meanwhile.
        if let Some(parent) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().as_deref().and_then(parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = vec![ancestor.as_raw()];
    while let Some(pid) = next.pop() {
        let below = children.get(&pid).into_iter().flatten().filter(|child| found.insert(Pid::from_raw(**child)));
        next.extend(below);
    }
    Ok(found)
}

/// The fourth field of /proc/PID/stat (proc_pid_stat(5)).
pub(crate) fn parent(stat: &str) -> Option<i32> {
    stat_field(stat, 4)?.parse().ok()
}

/// In clock ticks since the machine's start; no two processes of one number have the same.
fn start_time(pid: Pid) -> Option<u64> {
    stat_field(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, 22)?.parse().ok()
}

/// A field of /proc/PID/stat (proc_pid_stat(5)), counted from 1, past the second: that is the program's name and may hold anything, parentheses too.
pub fn stat_field(stat: &str, number: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

fn is_of(pid: Pid, uid: Uid) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == uid.as_raw())
}

fn holds(pid: Pid, link: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == link))
}

/// A line of /proc/net/tcp, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    uid: u32,
    inode: u64,
}

/// A client's socket may be an IPv6 one with mapped addresses.
fn socket(client: SocketAddr, proxy: SocketAddr) -> io::Result<Option<Socket>> {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => {
                if let Some(socket) = text.lines().skip(1).find_map(|line| matching(line, client, proxy)) {
                    return Ok(Some(socket));
                }
            }
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// `sl local rem st tx:rx tr:when retrnsmt uid timeout inode …` (proc_pid_net(5)).
pub(crate) fn matching(line: &str, client: SocketAddr, proxy: SocketAddr) -> Option<Socket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, remote, _, _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    if endpoint(local)? != client || endpoint(remote)? != proxy {
        return None;
    }
    // Inode 0: no process has it any more.
    let socket = Socket { uid: uid.parse().ok()?, inode: inode.parse().ok()? };
    (socket.inode != 0).then_some(socket)
}

/// `0100007F:1F90`: each word of the address as the machine keeps it in memory, the port as a number.
pub(crate) fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> =
        (0..address.len() / 8).map(|at| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes())).collect();
    let ip = match words?.as_slice() {
        [v4] => IpAddr::from(Ipv4Addr::from(*v4)),
        words @ [_, _, _, _] => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream},
        process::{Command, Stdio},
    };

    #[cfg(target_endian = "little")]
    #[test]
    fn endpoints() {
        assert_eq!(endpoint("0100007F:1F90"), "127.0.0.1:8080".parse().ok());
        assert_eq!(endpoint("00000000000000000000000001000000:0050"), "[::1]:80".parse().ok());
        assert_eq!(endpoint("0000000000000000FFFF00000100007F:0050"), "127.0.0.1:80".parse().ok());
        for wrong in ["", "0100007F", "0100007:1F90", "0100007F:10000", "0100007F00000000:1F90"] {
            assert_eq!(endpoint(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parents_of_programs_with_odd_names() {
        assert_eq!(parent("17 (a) b) S 4 17 17 0"), Some(4));
        assert_eq!(parent("17 (sh"), None);
    }

    /// A client that is this very process, which is no descendant of its own.
    #[test]
    fn a_process_that_is_not_below_is_not_of_the_run() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, theirs) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let run = Run::new(Uid::effective(), Pid::this());
        assert!(socket(ours, theirs).unwrap().is_some());
        assert!(!run.owns(ours, theirs, None));
    }

    /// A grandchild is; another user's is not.
    #[test]
    fn a_process_below_is_of_the_run() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("(exec 3<>/dev/tcp/127.0.0.1/{port}; read -u 3 line); true");
        let mut child = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        let (accepted, client) = listener.accept().unwrap();
        let proxy = accepted.local_addr().unwrap();
        let run = Run::new(Uid::effective(), Pid::this());
        assert!(run.owns(client, proxy, None));
        assert!(run.owns(client, proxy, None), "known now");
        assert!(!Run::new(Uid::from_raw(run.uid.as_raw() + 1), Pid::this()).owns(client, proxy, None));
        // A number that was given again is another process.
        let again = Run { known: Mutex::new([(Pid::this(), 1)].into()), ..Run::new(Uid::effective(), Pid::from_raw(1 << 22)) };
        assert!(!again.owns(client, proxy, None));
        assert!(again.known.lock().unwrap().is_empty());
        drop(accepted);
        child.wait().unwrap();
    }
}
