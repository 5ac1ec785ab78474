//! An internet in one process: a network of origins behind one cable, with its own names and its own certificate authority.
//!
//! The calling thread is moved into a namespace of its own, the "host" on which the command is run; the origins live in a second one.

use netns::NetNs;
use nix::sched::{CloneFlags, unshare};
use std::{
    io::Write,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

mod dns;
mod http;
pub mod pki;
mod sockets;

use pki::Pki;

/// Addresses of the origins, each in 203.0.113.0/24 and 2001:db8:113::/64 with the same last number.
pub const API: u8 = 10;
pub const OTHER: u8 = 11;
pub const RAW: u8 = 12;
pub const HTTP1: u8 = 13;
/// Where a test starts programs of its own, see [`Internet::spawn`].
pub const PROGRAMS: u8 = 14;
pub const DNS: u8 = 53;

/// What each line of `ip -batch` does on the side of the host.
const HOST: &str = "link set lo up
link set uplink addrgenmode none
addr add 198.51.100.2/24 dev uplink
addr add 2001:db8:51::2/64 dev uplink nodad
link set uplink up
route add default via 198.51.100.1
route add default via 2001:db8:51::1
";

const ORIGINS: &str = "link set lo up
addr add 198.51.100.1/24 dev eth0
addr add 2001:db8:51::1/64 dev eth0 nodad
link set eth0 up
";

/// One request as an origin received it.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the TLS handshake named, empty for plain HTTP.
    pub sni: String,
    pub authority: String,
    pub method: String,
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What the origins share with the test.
#[derive(Default)]
pub struct Shared {
    requests: Mutex<Vec<Request>>,
    /// Names asked of the name server.
    questions: Mutex<Vec<String>>,
    /// Every byte that came in a connection, inside its TLS, by the name the client asked for; empty for plain HTTP.
    received: Mutex<Vec<(String, Vec<u8>)>>,
    next_event: tokio::sync::Notify,
}

pub struct Internet {
    pub pki: Pki,
    origins: NetNs,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    servers: Option<thread::JoinHandle<()>>,
}

impl Internet {
    /// Moves the calling thread into the host's network namespace and starts the origins. Needs CAP_SYS_ADMIN.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare network namespace");
        let origins = empty_namespace();
        let far_end = format!("/proc/{}/fd/{}", std::process::id(), origins.as_fd().as_raw_fd());
        ip(&format!("link add uplink type veth peer name eth0 netns {far_end}\n{HOST}"));
        let pki = Pki::new();
        let shared = Arc::<Shared>::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let servers = origins.run(|| start(&pki, &shared, stopped)).expect("enter the origins' namespace");
        Self { pki, origins, shared, stop: Some(stop), servers: Some(servers) }
    }

    /// Starts a program among the origins, where any user may listen on any port.
    pub fn spawn(&self, command: &mut Command) -> Child {
        self.origins
            .run(|| command.spawn())
            .expect("enter the origins' namespace")
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"))
    }

    /// What the origins have received since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    pub fn take_questions(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.questions.lock().unwrap())
    }

    /// What came since the last call, as it came.
    pub fn take_bytes(&self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut *self.shared.received.lock().unwrap())
    }

    /// Lets every open event stream send its next event.
    pub fn send_event(&self) {
        self.shared.next_event.notify_one();
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(servers) = self.servers.take() {
            let _ = servers.join();
        }
    }
}

/// A namespace belongs to a thread: one that ends leaves it behind.
fn empty_namespace() -> NetNs {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare network namespace");
        NetNs::current().expect("open network namespace")
    };
    thread::spawn(make).join().unwrap()
}

/// Runs `ip -batch` in the calling thread's namespace.
fn ip(batch: &str) {
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("start ip (package iproute2)");
    ip.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success(), "ip could not do:\n{batch}");
}

/// Binds everything before the first packet can come, then serves it from a thread of this namespace.
fn start(pki: &Pki, shared: &Arc<Shared>, stopped: tokio::sync::oneshot::Receiver<()>) -> thread::JoinHandle<()> {
    let addresses = [API, OTHER, RAW, HTTP1, PROGRAMS, DNS];
    let lines = addresses
        .iter()
        .flat_map(|n| [format!("addr add 203.0.113.{n}/32 dev lo\n"), format!("addr add 2001:db8:113::{n}/128 dev lo nodad\n")]);
    ip(&(ORIGINS.to_owned() + &lines.collect::<String>()));

    let tcp = |n: u8, port: u16| both(n).map(|ip| TcpListener::bind((ip.as_str(), port)).unwrap());
    let udp = |n: u8, port: u16| both(n).map(|ip| UdpSocket::bind((ip.as_str(), port)).unwrap());
    let bound = Bound {
        https: [tcp(API, 443), tcp(OTHER, 443)].into_iter().flatten().collect(),
        https_http1: tcp(HTTP1, 443).into(),
        http: [tcp(API, 80), tcp(OTHER, 80)].into_iter().flatten().collect(),
        echo: [tcp(RAW, 7), tcp(RAW, 8443)].into_iter().flatten().collect(),
        banner: tcp(RAW, 2525).into(),
        udp_echo: [udp(RAW, 7), udp(API, 443)].into_iter().flatten().collect(),
        dns_udp: udp(DNS, 53).into(),
        dns_tcp: tcp(DNS, 53).into(),
    };
    let (shared, modern, old) = (shared.clone(), pki.server(&["h2", "http/1.1"]), pki.server(&["http/1.1"]));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            bound.https.into_iter().for_each(|listener| http::serve_tls(listener, modern.clone(), shared.clone()));
            bound.https_http1.into_iter().for_each(|listener| http::serve_tls(listener, old.clone(), shared.clone()));
            bound.http.into_iter().for_each(|listener| http::serve_plain(listener, shared.clone()));
            bound.echo.into_iter().for_each(sockets::echo);
            bound.banner.into_iter().for_each(sockets::banner);
            bound.udp_echo.into_iter().for_each(sockets::udp_echo);
            bound.dns_udp.into_iter().for_each(|socket| dns::serve_udp(socket, shared.clone()));
            bound.dns_tcp.into_iter().for_each(|listener| dns::serve_tcp(listener, shared.clone()));
            let _ = stopped.await;
        });
    })
}

/// The addresses of one origin.
fn both(n: u8) -> [String; 2] {
    [format!("203.0.113.{n}"), format!("2001:db8:113::{n}")]
}

struct Bound {
    https: Vec<TcpListener>,
    https_http1: Vec<TcpListener>,
    http: Vec<TcpListener>,
    echo: Vec<TcpListener>,
    banner: Vec<TcpListener>,
    udp_echo: Vec<UdpSocket>,
    dns_udp: Vec<UdpSocket>,
    dns_tcp: Vec<TcpListener>,
}
