//! Dialling: name to addresses, addresses to one TCP connection.

use super::{UpstreamError, forbidden};
use crate::host::{Host, Target};
use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long one address may be silent before the next is tried alongside (RFC 8305 §5, "Connection Attempt Delay").
const STAGGER: Duration = Duration::from_millis(250);
/// A peer that vanished is noticed after about this long without a byte: well below the 350 s after which common NATs forget a connection.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Opens TCP connections and refuses forbidden addresses.
pub struct Dialer {
    rule: forbidden::Rule,
    timeout: Duration,
}

impl Dialer {
    pub fn new(rule: forbidden::Rule, timeout: Duration) -> Self {
        Self { rule, timeout }
    }

    /// See [`forbidden::Rule::names`].
    pub fn names(&self, addr: SocketAddr) -> bool {
        self.rule.names(addr)
    }

    /// A connection for TLS to `target`: to `addr` if one was chosen, else to whatever the name stands for.
    /// Everything verified goes through here, so chaining through another proxy (CONNECT) belongs here too.
    pub async fn connect(&self, target: &Target, addr: Option<SocketAddr>) -> Result<TcpStream, UpstreamError> {
        match (addr, &target.host) {
            (Some(addr), _) => self.dial(addr).await,
            (None, Host::Ip(ip)) => self.dial((*ip, target.port).into()).await,
            (None, Host::Name(name)) => self.dial_name(&target.host, name.as_str(), target.port).await,
        }
    }

    /// A connection to exactly this address.
    pub async fn dial(&self, addr: SocketAddr) -> Result<TcpStream, UpstreamError> {
        self.rule.check(addr)?;
        match timeout(self.timeout, open(addr)).await {
            Ok(connected) => connected.map_err(|source| UpstreamError::Connect { addr, source }),
            Err(_) => Err(self.timed_out(addr.to_string())),
        }
    }

    async fn dial_name(&self, host: &Host, name: &str, port: u16) -> Result<TcpStream, UpstreamError> {
        let attempt = async {
            let found =
                tokio::net::lookup_host((name, port)).await.map_err(|source| UpstreamError::Lookup { host: host.clone(), source })?;
            let addrs = self.permitted(found.collect(), host)?;
            race(addrs).await.map_err(|(addr, source)| UpstreamError::Connect { addr, source })
        };
        timeout(self.timeout, attempt).await.unwrap_or_else(|_| Err(self.timed_out(Target { host: host.clone(), port }.to_string())))
    }

    /// Drops what is forbidden; when nothing is left, that is the answer.
    fn permitted(&self, found: Vec<SocketAddr>, host: &Host) -> Result<Vec<SocketAddr>, UpstreamError> {
        let mut refusal = None;
        let mut addrs = Vec::with_capacity(found.len());
        for addr in found {
            match self.rule.check(addr) {
                Ok(()) => addrs.push(addr),
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) if addrs.is_empty() => Err(error),
            None if addrs.is_empty() => Err(UpstreamError::Lookup { host: host.clone(), source: io::Error::other("no addresses") }),
            _ => Ok(alternate(addrs)),
        }
    }

    fn timed_out(&self, peer: String) -> UpstreamError {
        UpstreamError::Timeout { peer, stage: "connection", after: self.timeout }
    }
}

async fn open(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
    Ok(stream)
}

/// The families take turns, the resolver's first choice first (RFC 8305 §4).
fn alternate(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addrs.into_iter().partition(|addr| addr.is_ipv6() == first_v6);
    let mut second = second.into_iter();
    let mut order: Vec<SocketAddr> = first.into_iter().flat_map(|addr| [Some(addr), second.next()]).flatten().collect();
    order.extend(second);
    order
}

/// Tries the addresses in turn, each [`STAGGER`] after the one before or as soon as that failed; the first connection wins and the other
/// attempts are dropped. `Err`: the last failure.
async fn race(addrs: Vec<SocketAddr>) -> Result<TcpStream, (SocketAddr, io::Error)> {
    let mut waiting = addrs.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = (SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0), io::Error::other("no address to try"));
    let mut more = true;
    loop {
        if more {
            match waiting.next() {
                Some(addr) => drop(attempts.spawn(async move { open(addr).await.map_err(|error| (addr, error)) })),
                None if attempts.is_empty() => return Err(failure),
                None => {}
            }
        }
        more = tokio::select! {
            Some(done) = attempts.join_next() => match done {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => { failure = error; true }
                Err(_) => true,
            },
            () = sleep(STAGGER), if waiting.len() > 0 => true,
            else => return Err(failure),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let found = addrs(&["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "203.0.113.1:1"]);
        let want = addrs(&["[2001:db8::1]:1", "203.0.113.1:1", "[2001:db8::2]:1", "[2001:db8::3]:1"]);
        assert_eq!(alternate(found), want);
        let found = addrs(&["203.0.113.1:1", "[2001:db8::1]:1", "[2001:db8::2]:1"]);
        assert_eq!(alternate(found.clone()), found);
        assert_eq!(alternate(Vec::new()), []);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_stop_the_next() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stream = race(vec![dead, alive]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(stream.nodelay().unwrap() && SockRef::from(&stream).keepalive().unwrap());
        let (addr, error) = race(vec![dead]).await.unwrap_err();
        assert_eq!((addr, error.kind()), (dead, io::ErrorKind::ConnectionRefused));
        assert!(race(Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_where_no_address_was_chosen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let dialer = Dialer::new(forbidden::Rule::new(true, Vec::new()), Duration::from_secs(20));
        let connect = |host: &str| {
            let target = Target { host: host.parse().unwrap(), port: addr.port() };
            let dialer = &dialer;
            async move { dialer.connect(&target, None).await }
        };
        assert_eq!(connect("localhost").await.unwrap().peer_addr().unwrap(), addr);
        assert_eq!(connect("127.0.0.1").await.unwrap().peer_addr().unwrap(), addr);
    }

    #[tokio::test]
    async fn names_are_held_to_the_rule_too() {
        let target = Target { host: "localhost".parse().unwrap(), port: 9 };
        let dialer = Dialer::new(forbidden::Rule::new(false, Vec::new()), Duration::from_secs(5));
        assert!(matches!(dialer.connect(&target, None).await, Err(UpstreamError::Forbidden(_))));
        assert!(matches!(dialer.dial("169.254.169.254:80".parse().unwrap()).await, Err(UpstreamError::Forbidden(_))));
        assert!(matches!(dialer.connect(&target, "[::ffff:127.0.0.1]:9".parse().ok()).await, Err(UpstreamError::Forbidden(_))));
    }
}
