//! Whether a connection to the explicit proxy comes from this run: by the kernel's list of sockets and the tree of processes.
//!
//! The environment mode has no namespace, so anybody on this machine may connect. Only the run's own processes get anything injected.
//! (Processes of the same user are no boundary all the same: one may trace another of the run.)

use std::{
    fs::{self, File},
    io::{self, Read},
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use http::HeaderValue;
use netns::sock_diag::{self, Socket};
use nix::{
    dir::Dir,
    fcntl::{OFlag, openat, readlinkat},
    sys::stat::{Mode, fstat},
    unistd::{Pid, Uid},
};

use super::process_tree::{descendants, newest_below, parent};

/// How many processes are remembered: one that connects again and again, and the latest newcomer. For a connection of any other process all of them
/// are looked at in vain.
const MAX_KNOWN: usize = 2;
/// More than the first fields of /proc/PID/stat take, in octets.
const STAT_SIZE: usize = 256;

/// Who may have credentials injected: processes of `uid` that descend from `supervisor`, which is a subreaper, so that none gets lost.
#[derive(Debug)]
pub struct Run {
    uid: Uid,
    supervisor: Pid,
    /// Processes of the run that have connected, first the one that did so again: what descends from the supervisor does so to its end.
    known: Mutex<Vec<Process>>,
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
    /// Blocks: it reads what /proc has of the run's processes, and of all for a stranger.
    pub fn owns(&self, client: SocketAddr, proxy: SocketAddr, _shown: Option<&HeaderValue>) -> bool {
        socket(client, proxy).is_some_and(|socket| socket.uid == self.uid.as_raw() && self.holds(&format!("socket:[{}]", socket.inode)))
    }

    fn holds(&self, link: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.iter().position(|process| process.holds(self.uid, link)) {
            known[..=at].rotate_right(1);
            return true;
        }
        let holder = |pid| Process::open(pid).filter(|process| process.holds(self.uid, link) && process.descends_from(self.supervisor));
        let found = newest_below(self.supervisor).find_map(holder);
        let found = found.or_else(|| descendants(self.supervisor).ok()?.into_iter().find_map(holder));
        let is_found = found.is_some();
        known.retain(|process| process.parent_number().is_some());
        known.truncate(MAX_KNOWN - usize::from(is_found));
        known.extend(found);
        is_found
    }
}

/// By its directory in /proc. While that is open nothing is found below it but this process, whoever is given its number after its end.
#[derive(Debug)]
struct Process(File);

impl Process {
    fn open(pid: Pid) -> Option<Self> {
        File::open(format!("/proc/{pid}")).ok().map(Self)
    }

    /// Whether it runs as `uid` and has what /proc/PID/fd calls `link`. The highest numbers first, which mostly are the newest.
    fn holds(&self, uid: Uid, link: &str) -> bool {
        let is_link = |directory: &Dir, name: &_| readlinkat(directory, name).is_ok_and(|target| target == link);
        let is_of = fstat(&self.0).is_ok_and(|status| status.st_uid == uid.as_raw());
        let Some(mut directory) =
            is_of.then(|| Dir::openat(&self.0, "fd", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()).flatten()
        else {
            return false;
        };
        let names: Vec<_> = directory.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
        names.iter().rev().any(|name| is_link(&directory, name.as_c_str()))
    }

    fn descends_from(&self, ancestor: Pid) -> bool {
        iter::successors(self.parent(), |(_, parent)| parent.parent()).any(|(pid, _)| pid == ancestor)
    }

    /// With its number, which is the same before and after its directory is opened: no other process had it in between.
    fn parent(&self) -> Option<(Pid, Self)> {
        let pid = self.parent_number()?;
        let parent = Self::open(pid)?;
        (self.parent_number() == Some(pid)).then_some((pid, parent))
    }

    fn parent_number(&self) -> Option<Pid> {
        let mut stat = [0; STAT_SIZE];
        let file = openat(&self.0, "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let length = File::from(file).read(&mut stat).ok()?;
        parent(&String::from_utf8_lossy(&stat[..length])).map(Pid::from_raw)
    }
}

/// `None`: no process has it (any more).
fn socket(client: SocketAddr, proxy: SocketAddr) -> Option<Socket> {
    // Where the kernel does not answer the table does, at the cost of a walk through every connection the machine has room for.
    let socket = sock_diag::tcp(client, proxy).ok().or_else(|| in_table(client, proxy));
    socket.filter(|socket| socket.inode != 0)
}

/// A client's socket may be an IPv6 one with mapped addresses. A kernel without IPv6 has no second table.
fn in_table(client: SocketAddr, proxy: SocketAddr) -> Option<Socket> {
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| matching(line, client, proxy))
    })
}

/// `sl local rem st tx:rx tr:when retrnsmt uid timeout inode …` (proc_pid_net(5)).
pub(crate) fn matching(line: &str, client: SocketAddr, proxy: SocketAddr) -> Option<Socket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, remote, _, _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    if endpoint(local)? != client || endpoint(remote)? != proxy {
        return None;
    }
    Some(Socket { uid: uid.parse().ok()?, inode: inode.parse().ok()? })
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
        process::{Child, Command, Stdio},
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

    /// A connection from `script`, a program for bash that opens it as descriptor 3: the child, our end and both addresses.
    fn connected(script: &str) -> (Child, TcpStream, SocketAddr, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = format!("connect() {{ exec 3<>/dev/tcp/127.0.0.1/{}; }}; {script}", listener.local_addr().unwrap().port());
        let child = Command::new("bash").args(["-c", &open]).stdin(Stdio::null()).spawn().unwrap();
        let (accepted, client) = listener.accept().unwrap();
        let proxy = accepted.local_addr().unwrap();
        (child, accepted, client, proxy)
    }

    fn pid(child: &Child) -> Pid {
        Pid::from_raw(child.id().cast_signed())
    }

    /// A client that is this very process, which is no descendant of its own.
    #[test]
    fn a_process_that_is_not_below_is_not_of_the_run() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, theirs) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let run = Run::new(Uid::effective(), Pid::this());
        assert!(socket(ours, theirs).is_some());
        assert!(!run.owns(ours, theirs, None));
    }

    #[test]
    fn the_table_says_what_the_kernel_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for address in ["127.0.0.1", "::ffff:127.0.0.1"] {
            let client = TcpStream::connect((address, listener.local_addr().unwrap().port())).unwrap();
            let (accepted, ours) = listener.accept().unwrap();
            let theirs = accepted.local_addr().unwrap();
            let found = in_table(ours, theirs);
            assert_eq!(found, sock_diag::tcp(ours, theirs).ok());
            assert_eq!(found.unwrap().inode, fstat(&client).unwrap().st_ino);
        }
    }

    /// A grandchild is; another user's is not.
    #[test]
    fn a_process_below_is_of_the_run() {
        let (mut child, accepted, client, proxy) = connected("(connect; read -u 3 line); true");
        let run = Run::new(Uid::effective(), Pid::this());
        assert!(run.owns(client, proxy, None));
        assert_eq!(run.known.lock().unwrap().len(), 1);
        assert!(run.owns(client, proxy, None), "known now");
        assert_eq!(run.known.lock().unwrap().len(), 1);
        assert!(!Run::new(Uid::from_raw(run.uid.as_raw() + 1), Pid::this()).owns(client, proxy, None));
        drop(accepted);
        child.wait().unwrap();
        assert!(!run.holds("socket:[0]"));
        assert!(run.known.lock().unwrap().is_empty(), "it has ended");
    }

    #[test]
    fn newcomers_do_not_displace_who_connects_again() {
        let run = Run::new(Uid::effective(), Pid::this());
        let clients: Vec<_> = (0..=MAX_KNOWN).map(|_| connected("connect; read -u 3 line")).collect();
        let owned = |(_, _, client, proxy): &(Child, TcpStream, SocketAddr, SocketAddr)| run.owns(*client, *proxy, None);
        assert!(owned(&clients[0]));
        assert!(clients.iter().all(owned), "the first for the second time");
        let (_, _, client, proxy) = clients[0];
        let link = format!("socket:[{}]", socket(client, proxy).unwrap().inode);
        let known = run.known.lock().unwrap();
        assert_eq!(known.len(), MAX_KNOWN);
        assert!(known[0].holds(run.uid, &link));
        for (mut child, accepted, ..) in clients {
            drop(accepted);
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_process_of_another_family_is_a_stranger() {
        let (mut stranger, accepted, client, proxy) = connected("connect; read -u 3 line");
        let mut supervisor = Command::new("sleep").arg("infinity").spawn().unwrap();
        assert!(!Run::new(Uid::effective(), pid(&supervisor)).owns(client, proxy, None));
        assert!(Process::open(pid(&stranger)).unwrap().descends_from(Pid::this()));
        assert!(!Process::open(pid(&stranger)).unwrap().descends_from(pid(&supervisor)));
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        drop(accepted);
        stranger.wait().unwrap();
    }

    #[test]
    fn an_orphan_and_a_copy_that_alone_has_the_socket_are_of_the_run() {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        for script in ["(connect; read -u 3 line) &", "connect; (read -u 3 line) & exec 3>&-; wait"] {
            let (mut child, accepted, client, proxy) = connected(script);
            if script.ends_with('&') {
                child.wait().unwrap();
            }
            assert!(Run::new(Uid::effective(), Pid::this()).owns(client, proxy, None), "{script}");
            drop(accepted);
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_number_that_is_given_again_is_not_the_process() {
        let mut child = Command::new("sleep").arg("infinity").spawn().unwrap();
        let process = Process::open(pid(&child)).unwrap();
        let (inherited, link) = (Uid::effective(), fs::read_link(format!("/proc/{}/fd/0", child.id())).unwrap());
        assert!(process.holds(inherited, link.to_str().unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.holds(inherited, link.to_str().unwrap()));
        assert!(process.parent_number().is_none());
    }
}
