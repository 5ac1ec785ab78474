//! What the supervisor and the sandbox's first process say to each other, and the typed ends of the channel they say it on.
//!
//! ```text
//! supervisor                         init
//!            ◄── Listening (fds) ──
//!            ◄── Exposed (fds) … ──
//!            ── Configure ────────►
//!            ◄── Prepared ────────
//!            ── Go ───────────────►
//!            ◄── Started ─────────
//!            ── Signal … ─────────►
//!            ── Socket … ─────────►
//!            ◄── Socket (fd) … ────
//!            ◄── Stopped … ───────
//!            ◄── Ended ───────────
//!            ◄── Alone ───────────
//! ```
//! Instead of any of its reports init may say `Failed`; nothing of the command has run unless it said `Started`.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netns::spawn::Channel;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{RunError, init::Failure};

/// What the supervisor tells init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    Configure(Configure),
    Go,
    Signal(i32),
    Socket { v6: bool },
}

/// What init tells the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Listening { v6: bool },
    Exposed,
    Prepared { left_alone: Vec<String> },
    Failed(Failure),
    Event(Event),
    Socket { errno: Option<i32> },
}

/// What only the supervisor knows, and only after the clone.
#[derive(Debug, Serialize, Deserialize)]
pub struct Configure {
    /// The run's certificate authority, PEM.
    pub certificate: String,
    /// The common name of its subject.
    pub common_name: String,
    /// The inner end of the uplink, in its own text form.
    pub uplink: Option<String>,
}

/// What became of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Started,
    /// `execve` failed with this errno.
    NotStarted(i32),
    Stopped,
    Exited(u8),
    Killed(i32),
    /// After its end: no process is left inside but init itself.
    Alone,
}

/// What init says once the command may run.
pub enum News {
    Event(Event),
    /// The socket that was asked for, not connected; an errno where the kernel gave none.
    Socket(Result<OwnedFd, i32>),
}

/// What the supervisor asks of init while the command runs.
pub enum Request {
    Signal(i32),
    /// A TCP socket of the namespace, for `--publish`.
    Socket {
        v6: bool,
    },
}

/// The sockets init bound inside the namespace, and the namespace itself.
pub struct Listening {
    pub namespace: OwnedFd,
    pub listeners: Vec<TcpListener>,
    pub dns_tcp: Vec<TcpListener>,
    pub dns_udp: Vec<UdpSocket>,
}

/// The supervisor's end. `Channel` errors mean that init is gone.
pub struct Supervisor<'a>(pub &'a Channel);

/// Init's end. A `None` or an error means that the supervisor is gone.
pub struct Init(pub Channel);

impl Supervisor<'_> {
    pub fn listening(&self) -> Result<Listening, RunError> {
        let (report, fds) = self.report()?;
        let Report::Listening { v6 } = report else { return Err(unexpected(report)) };
        let families = if v6 { 2 } else { 1 };
        if fds.len() != 1 + 3 * families {
            return Err(RunError::Protocol);
        }
        let mut fds = fds.into_iter();
        let namespace = fds.next().ok_or(RunError::Protocol)?;
        let listeners = fds.by_ref().take(families).map(TcpListener::from).collect();
        let dns_tcp = fds.by_ref().take(families).map(TcpListener::from).collect();
        let dns_udp = fds.map(UdpSocket::from).collect();
        Ok(Listening { namespace, listeners, dns_tcp, dns_udp })
    }

    /// The listeners of one exposed port.
    pub fn exposed(&self) -> Result<Vec<TcpListener>, RunError> {
        match self.report()? {
            (Report::Exposed, fds) => Ok(fds.into_iter().map(TcpListener::from).collect()),
            (other, _) => Err(unexpected(other)),
        }
    }

    pub fn configure(&self, configure: Configure) -> Result<(), RunError> {
        self.order(&Order::Configure(configure))
    }

    /// What inside will not trust the run's certificates, a line each.
    pub fn prepared(&self) -> Result<Vec<String>, RunError> {
        match self.report()?.0 {
            Report::Prepared { left_alone } => Ok(left_alone),
            other => Err(unexpected(other)),
        }
    }

    pub fn go(&self) -> Result<(), RunError> {
        self.order(&Order::Go)
    }

    pub fn signal(&self, signal: i32) -> Result<(), RunError> {
        self.order(&Order::Signal(signal))
    }

    pub fn ask_socket(&self, v6: bool) -> Result<(), RunError> {
        self.order(&Order::Socket { v6 })
    }

    /// `None`: nothing yet.
    pub fn news(&self) -> Result<Option<News>, RunError> {
        let received = match self.0.try_recv() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            result => result.map_err(|_| RunError::Protocol)?,
        };
        let (bytes, mut fds) = received.ok_or(RunError::InitGone)?;
        match serde_json::from_slice(&bytes).map_err(|_| RunError::Protocol)? {
            Report::Event(event) => Ok(Some(News::Event(event))),
            Report::Socket { errno: Some(errno) } => Ok(Some(News::Socket(Err(errno)))),
            Report::Socket { errno: None } => fds.pop().map(|fd| Some(News::Socket(Ok(fd)))).ok_or(RunError::Protocol),
            other => Err(unexpected(other)),
        }
    }

    fn order(&self, order: &Order) -> Result<(), RunError> {
        send(self.0, order, &[]).map_err(|_| RunError::InitGone)
    }

    fn report(&self) -> Result<(Report, Vec<OwnedFd>), RunError> {
        receive(self.0).map_err(|_| RunError::Protocol)?.ok_or(RunError::InitGone)
    }
}

fn unexpected(report: Report) -> RunError {
    match report {
        Report::Failed(failure) => RunError::Sandbox(failure),
        _ => RunError::Protocol,
    }
}

impl Init {
    /// `fds`: the namespace, then listeners, DNS over TCP and DNS over UDP, each IPv4 first.
    pub fn listening(&self, fds: &[BorrowedFd<'_>], v6: bool) -> io::Result<()> {
        send(&self.0, &Report::Listening { v6 }, fds)
    }

    pub fn exposed(&self, listeners: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.0, &Report::Exposed, listeners)
    }

    pub fn configure(&self) -> Option<Configure> {
        match self.order()? {
            Order::Configure(configure) => Some(configure),
            _ => None,
        }
    }

    pub fn prepared(&self, left_alone: Vec<String>) -> io::Result<()> {
        send(&self.0, &Report::Prepared { left_alone }, &[])
    }

    /// `None` also when anything else than "go" was said: then nothing starts.
    pub fn go(&self) -> Option<()> {
        matches!(self.order()?, Order::Go).then_some(())
    }

    pub fn failed(&self, failure: Failure) -> io::Result<()> {
        send(&self.0, &Report::Failed(failure), &[])
    }

    pub fn event(&self, event: Event) -> io::Result<()> {
        send(&self.0, &Report::Event(event), &[])
    }

    pub fn socket(&self, socket: Result<BorrowedFd<'_>, i32>) -> io::Result<()> {
        match socket {
            Ok(fd) => send(&self.0, &Report::Socket { errno: None }, &[fd]),
            Err(errno) => send(&self.0, &Report::Socket { errno: Some(errno) }, &[]),
        }
    }

    /// The next thing asked for while the command runs.
    pub fn request(&self) -> Option<Request> {
        match self.order()? {
            Order::Signal(signal) => Some(Request::Signal(signal)),
            Order::Socket { v6 } => Some(Request::Socket { v6 }),
            _ => None,
        }
    }

    fn order(&self) -> Option<Order> {
        receive(&self.0).ok().flatten().map(|(order, _)| order)
    }
}

impl AsFd for Init {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn send(channel: &Channel, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    channel.send(&serde_json::to_vec(message)?, fds)
}

fn receive<T: DeserializeOwned>(channel: &Channel) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some((bytes, fds)) = channel.recv()? else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&bytes)?, fds)))
}
