//! Machines on a wire, for tests of anything that crosses a network: each is a namespace with a name and addresses.
//!
//! ```no_run
//! use netns::testing::Lan;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lan = Lan::new()?;
//! let server = lan.host("server", &["203.0.113.7/24", "2001:db8:113::7/64"])?;
//! let client = lan.host("client", &["203.0.113.9/24", "2001:db8:113::9/64"])?;
//! let listener = server.run(|| std::net::TcpListener::bind("203.0.113.7:80"))??;
//! let capture = client.capture()?;
//! client.run(|| std::net::TcpStream::connect("203.0.113.7:80"))??;
//! assert!(capture.finish()?.iter().any(|frame| frame.tcp_to(80)));
//! # Ok(()) }
//! ```
//!
//! It needs CAP_SYS_ADMIN and CAP_NET_ADMIN: root, or a process that has unshared a user and a network namespace.

use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use pnet::{
    datalink::{self, Channel, Config, DataLinkReceiver},
    packet::{
        Packet,
        ethernet::{EtherTypes, EthernetPacket},
        ip::{IpNextHeaderProtocol, IpNextHeaderProtocols},
        ipv4::Ipv4Packet,
        ipv6::Ipv6Packet,
        tcp::TcpPacket,
        udp::UdpPacket,
    },
};

use crate::{
    NetNs,
    link::{self, IpNet},
};

/// The link of every host; each is alone in its namespace.
const LINK: &str = "eth0";
/// The bridge that joins them.
const BRIDGE: &str = "wire";
/// How long a capture waits for a frame before it looks whether it is to end.
const POLL: Duration = Duration::from_millis(20);

/// What can go wrong while the wire is laid.
#[derive(Debug, thiserror::Error)]
pub enum TestingError {
    #[error(transparent)]
    Kernel(#[from] crate::Error),
    #[error("`{0}` is not an address with a prefix length")]
    Address(String),
    #[error("capture on {LINK}: {0}")]
    Capture(#[source] std::io::Error),
}

/// A wire: a bridge in a namespace of its own. Dropping it and its hosts leaves nothing behind.
pub struct Lan {
    bridge: NetNs,
}

/// A machine on a [`Lan`].
pub struct Host {
    namespace: NetNs,
    name: String,
}

impl Lan {
    pub fn new() -> Result<Self, TestingError> {
        let bridge = NetNs::new()?;
        bridge.run(|| link::add_bridge(BRIDGE).and_then(|()| link::up(BRIDGE)))??;
        Ok(Self { bridge })
    }

    /// A machine with `addresses` like `203.0.113.7/24`. `name` (at most 15 octets) also names its end of the wire.
    pub fn host(&self, name: &str, addresses: &[&str]) -> Result<Host, TestingError> {
        let nets = addresses.iter().map(|address| parse(address)).collect::<Result<Vec<_>, _>>()?;
        let namespace = NetNs::new()?;
        self.plug(name, &namespace)?;
        let host = Host { namespace, name: name.to_owned() };
        for net in nets {
            host.run(|| link::add_address(LINK, net))??;
        }
        host.run(|| link::up(LINK))??;
        Ok(host)
    }

    fn plug(&self, name: &str, namespace: &NetNs) -> Result<(), TestingError> {
        self.bridge.run(|| {
            link::add_veth(name, LINK, namespace.as_fd())?;
            link::set_bridge(name, BRIDGE)?;
            link::up(name)
        })??;
        Ok(())
    }
}

/// A machine without a prefix length would reach nobody, so one is asked for.
fn parse(address: &str) -> Result<IpNet, TestingError> {
    let net = address.contains('/').then(|| address.parse().ok()).flatten();
    net.ok_or_else(|| TestingError::Address(address.to_owned()))
}

impl Host {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on this machine: sockets it opens are this machine's, wherever they are used afterwards.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, crate::Error> {
        self.namespace.run(work)
    }

    /// Everything for which there is no nearer route goes by way of `gateway`.
    pub fn route_by(&self, gateway: IpAddr) -> Result<(), crate::Error> {
        self.run(|| link::add_default_route(LINK, Some(gateway)))?
    }

    /// Starts to record every frame that crosses this machine's end of the wire.
    pub fn capture(&self) -> Result<Capture, TestingError> {
        let opened = self.run(|| {
            let interface = datalink::interfaces().into_iter().find(|interface| interface.name == LINK);
            let interface = interface.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
            datalink::channel(&interface, Config { read_timeout: Some(POLL), ..Config::default() })
        })?;
        match opened.map_err(TestingError::Capture)? {
            Channel::Ethernet(_, receiver) => Ok(Capture::start(receiver)),
            _ => Err(TestingError::Capture(std::io::ErrorKind::Unsupported.into())),
        }
    }
}

impl AsFd for Host {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// A recording under way.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Frame>>,
}

impl Capture {
    fn start(mut receiver: Box<dyn DataLinkReceiver>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut frames = Vec::new();
            loop {
                match receiver.next() {
                    Ok(bytes) => frames.extend(Frame::parse(bytes)),
                    // Nothing within the poll time: all that had crossed by now is read.
                    Err(_) if stopped.load(Ordering::Acquire) => return frames,
                    Err(_) => {}
                }
            }
        });
        Self { stop, thread }
    }

    /// Ends it; the frames that crossed so far, in order. `Err` when the recording thread panicked.
    pub fn finish(self) -> Result<Vec<Frame>, TestingError> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| TestingError::Capture(std::io::Error::other("the recording thread panicked")))
    }
}

/// An IP packet that crossed the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: IpNextHeaderProtocol,
    /// Of TCP and UDP.
    pub port: Option<u16>,
    /// What TCP or UDP carried, else the whole payload.
    pub payload: Vec<u8>,
}

impl Frame {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let frame = EthernetPacket::new(bytes)?;
        match frame.get_ethertype() {
            EtherTypes::Ipv4 => {
                let packet = Ipv4Packet::new(frame.payload())?;
                Some(Self::of(
                    packet.get_source().into(),
                    packet.get_destination().into(),
                    packet.get_next_level_protocol(),
                    packet.payload(),
                ))
            }
            EtherTypes::Ipv6 => {
                let packet = Ipv6Packet::new(frame.payload())?;
                Some(Self::of(packet.get_source().into(), packet.get_destination().into(), packet.get_next_header(), packet.payload()))
            }
            _ => None,
        }
    }

    fn of(from: IpAddr, to: IpAddr, protocol: IpNextHeaderProtocol, payload: &[u8]) -> Self {
        let inner = match protocol {
            IpNextHeaderProtocols::Tcp => TcpPacket::new(payload).map(|tcp| (tcp.get_destination(), tcp.payload().to_vec())),
            IpNextHeaderProtocols::Udp => UdpPacket::new(payload).map(|udp| (udp.get_destination(), udp.payload().to_vec())),
            _ => None,
        };
        let (port, payload) = inner.map_or_else(|| (None, payload.to_vec()), |(port, payload)| (Some(port), payload));
        Self { from, to, protocol, port, payload }
    }

    pub fn tcp_to(&self, port: u16) -> bool {
        self.protocol == IpNextHeaderProtocols::Tcp && self.port == Some(port)
    }

    pub fn udp_to(&self, port: u16) -> bool {
        self.protocol == IpNextHeaderProtocols::Udp && self.port == Some(port)
    }
}
