//! Dialling: name to addresses, addresses to one TCP connection, or a tunnel through a proxy.

use super::{
    UpstreamError, forbidden,
    outbound::Outbound,
    proxy::{Kind, Proxies, Proxy},
    tls::{self, Offer},
};
use crate::host::{Host, Target};
use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long one address may be silent before the next is tried alongside (RFC 8305 §5, "Connection Attempt Delay").
const STAGGER: Duration = Duration::from_millis(250);
/// A peer that vanished is noticed after about this long without a byte: well below the 350 s after which common NATs forget a connection.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Lookups at once, half of the threads that the runtime has for what blocks: where no resolver answers, each holds its own for
/// 10 s and longer (resolv.conf(5)), and others need one, too.
static LOOKUPS: Semaphore = Semaphore::const_new(256);

/// Opens TCP connections, through proxies where there are any, and refuses forbidden addresses.
pub struct Dialer {
    rule: forbidden::Rule,
    proxies: Proxies,
    /// For proxies that are reached by TLS.
    tls: Arc<tls::Client>,
    timeout: Duration,
}

/// Where a request of plain HTTP goes.
pub enum Plain {
    Server(Outbound),
    /// To a proxy that takes requests for servers (RFC 9112 §3.2.2).
    Proxy(Outbound, Arc<Proxy>),
}

impl Dialer {
    pub fn new(rule: forbidden::Rule, proxies: Proxies, tls: Arc<tls::Client>, timeout: Duration) -> Self {
        Self { rule, proxies, tls, timeout }
    }

    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// See [`forbidden::Rule::names`].
    pub fn names(&self, addr: SocketAddr) -> bool {
        self.rule.names(addr)
    }

    /// A connection to `target`: through its proxy by name if it has one, else to `addr` if one was chosen, else to whatever the name stands for.
    pub async fn connect(&self, target: &Target, addr: Option<SocketAddr>) -> Result<Outbound, UpstreamError> {
        let Some(proxy) = self.proxies.of(target) else { return self.direct(target, addr).await.map(Outbound::Socket) };
        let tunnel = async {
            let outbound = self.reach(proxy, target, addr).await?;
            match (proxy.kind, outbound) {
                (Kind::Socks5, Outbound::Socket(socket)) => proxy.socks(socket, target).await,
                (_, Outbound::Socket(socket)) => proxy.connect(socket, target).await,
                (_, tls) => proxy.connect(tls, target).await,
            }
        };
        self.in_time(proxy, tunnel).await
    }

    /// As [`Self::connect`], for one request of plain HTTP.
    pub async fn connect_plain(&self, target: &Target) -> Result<Plain, UpstreamError> {
        match self.proxies.of(target) {
            Some(proxy) if proxy.kind != Kind::Socks5 => {
                let outbound = self.in_time(proxy, self.reach(proxy, target, None)).await?;
                Ok(Plain::Proxy(outbound, proxy.clone()))
            }
            _ => self.connect(target, None).await.map(Plain::Server),
        }
    }

    /// Whether each proxy answers: a connection to it, and TLS where it speaks that.
    pub async fn probe(&self, proxy: &Proxy) -> Result<(), UpstreamError> {
        self.in_time(proxy, self.open_proxy(proxy)).await.map(drop)
    }

    async fn in_time<T>(&self, proxy: &Proxy, attempt: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, UpstreamError> {
        match timeout(self.timeout, attempt).await {
            Ok(done) => done,
            Err(_) => {
                let source = UpstreamError::Timeout { peer: proxy.target.to_string(), stage: "answer", after: self.timeout };
                Err(UpstreamError::Proxy { proxy: proxy.target.clone(), source: Box::new(source) })
            }
        }
    }

    /// A connection to the proxy, which may then be asked for `target`. What may not be dialled may not be asked for either.
    async fn reach(&self, proxy: &Proxy, target: &Target, addr: Option<SocketAddr>) -> Result<Outbound, UpstreamError> {
        if let Some(addr) = addr {
            self.rule.check(addr)?;
        }
        match &target.host {
            Host::Ip(ip) => self.rule.check((*ip, target.port).into())?,
            Host::Name(name) if is_localhost(name.as_str()) => self.rule.check((Ipv4Addr::LOCALHOST, target.port).into())?,
            Host::Name(_) => {}
        }
        let (outbound, peer) = self.open_proxy(proxy).await?;
        // What is loopback to a proxy on this host is this host's; elsewhere a name is the proxy's own business.
        if let Host::Name(name) = &target.host
            && self.rule.check(peer).is_err()
            && let Ok(found) = look_up(name.as_str(), target.port).await
        {
            found.into_iter().try_for_each(|addr| self.rule.check(addr))?;
        }
        Ok(outbound)
    }

    /// The user named the proxy, so it may be anywhere, this host included. The rule is not changed by that: nobody else gets there.
    async fn open_proxy(&self, proxy: &Proxy) -> Result<(Outbound, SocketAddr), UpstreamError> {
        let unusable = |source| UpstreamError::Proxy { proxy: proxy.target.clone(), source: Box::new(source) };
        let Target { host, port } = &proxy.target;
        let addrs = match host {
            Host::Ip(ip) => vec![(*ip, *port).into()],
            Host::Name(name) => {
                let found = look_up(name.as_str(), *port).await;
                alternate(found.map_err(|source| unusable(UpstreamError::Lookup { host: host.clone(), source }))?)
            }
        };
        let socket = race(addrs).await.map_err(|(addr, source)| unusable(UpstreamError::Connect { addr, source }))?;
        let peer = socket.peer_addr().map_err(|source| unusable(UpstreamError::Connect { addr: ([0, 0, 0, 0], *port).into(), source }))?;
        if proxy.kind != Kind::Https {
            return Ok((Outbound::Socket(socket), peer));
        }
        let (tls, _) = self.tls.connect(Outbound::Socket(socket), &proxy.target, Offer::Http1).await.map_err(unusable)?;
        Ok((Outbound::tunnel(tls), peer))
    }

    async fn direct(&self, target: &Target, addr: Option<SocketAddr>) -> Result<TcpStream, UpstreamError> {
        match (addr, &target.host) {
            (Some(addr), _) => self.dial(addr).await,
            (None, Host::Ip(ip)) => self.dial((*ip, target.port).into()).await,
            (None, Host::Name(name)) => self.dial_name(&target.host, name.as_str(), target.port).await,
        }
    }

    /// A connection to exactly this address.
    async fn dial(&self, addr: SocketAddr) -> Result<TcpStream, UpstreamError> {
        self.rule.check(addr)?;
        match timeout(self.timeout, open(addr)).await {
            Ok(connected) => connected.map_err(|source| UpstreamError::Connect { addr, source }),
            Err(_) => Err(self.timed_out(addr.to_string())),
        }
    }

    async fn dial_name(&self, host: &Host, name: &str, port: u16) -> Result<TcpStream, UpstreamError> {
        let attempt = async {
            let found = look_up(name, port).await.map_err(|source| UpstreamError::Lookup { host: host.clone(), source })?;
            let addrs = self.permitted(found, host)?;
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

/// As tokio's own, but for the limit. A lookup that nobody waits for any more still counts until its thread is free.
async fn look_up(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let name = name.to_owned();
    let looking = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        (name.as_str(), port).to_socket_addrs().map(Iterator::collect)
    });
    looking.await.map_err(io::Error::other)?
}

/// RFC 6761 §6.3.
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
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

    fn dialer(allow_host: bool, proxies: Proxies) -> Dialer {
        let timeout = Duration::from_secs(20);
        Dialer::new(forbidden::Rule::new(allow_host, Vec::new()), proxies, Arc::new(tls::Client::new(Vec::new(), timeout)), timeout)
    }

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
        let dialer = dialer(true, Proxies::default());
        let connect = |host: &str| {
            let target = Target { host: host.parse().unwrap(), port: addr.port() };
            let dialer = &dialer;
            async move { dialer.connect(&target, None).await }
        };
        for host in ["localhost", "127.0.0.1"] {
            let Outbound::Socket(socket) = connect(host).await.unwrap() else { panic!("a socket") };
            assert_eq!(socket.peer_addr().unwrap(), addr);
        }
    }

    #[tokio::test]
    async fn names_are_held_to_the_rule_too() {
        let target = Target { host: "localhost".parse().unwrap(), port: 9 };
        let dialer = dialer(false, Proxies::default());
        assert!(matches!(dialer.connect(&target, None).await, Err(UpstreamError::Forbidden(_))));
        assert!(matches!(dialer.dial("169.254.169.254:80".parse().unwrap()).await, Err(UpstreamError::Forbidden(_))));
        assert!(matches!(dialer.connect(&target, "[::ffff:127.0.0.1]:9".parse().ok()).await, Err(UpstreamError::Forbidden(_))));
    }
}
