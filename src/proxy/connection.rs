//! One connection: what it speaks, where it goes, what becomes of it.

use std::{
    borrow::Cow,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Context,
    detect::{self, DetectError, Detected, Detection, Hello, detect},
    gate,
    http::{self, Rules},
    notice, opaque, page, remedy, tls,
};
use crate::{
    audit::{Blame, Guard, Verdict},
    dns,
    host::{Host, Name, Target},
    route::{Decision, Deny, policy::Protocol},
    upstream::{Destination, Outbound},
};

/// How long a client may stay silent before the server is dialled to see whether it speaks first (SMTP, SSH, MySQL …).
const SILENCE: Duration = Duration::from_millis(50);

/// The same on ports whose clients speak first by protocol; a browser's spare connection is then not doubled at once.
const SILENCE_HTTP: Duration = Duration::from_secs(1);

/// Ports where the client speaks first: http and https (RFC 9110 §4.2).
const CLIENT_FIRST: [u16; 2] = [80, 443];

/// What a plain HTTP request is answered with when policy refuses it; the reason follows as the body.
const DENIED: &str =
    "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\nx-authsome-error: denied\r\n";

/// How much of a refused request is read after the answer, in octets and time, before the connection is closed.
const MAX_DRAINED: u64 = 256 * 1024;
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Serves one redirected connection to its end. `original` is where the client was going.
pub async fn serve_connection(client: TcpStream, original: SocketAddr, context: Arc<Context>) {
    // Without it a relayed keystroke waits for the answer to the one before (RFC 9293 §3.7.4).
    drop(client.set_nodelay(true));
    let connection = Connection { client, server: None, way: Way::Address(original), context };
    if matches!(original.ip().to_canonical(), IpAddr::V4(dns::PAGE_V4) | IpAddr::V6(dns::PAGE_V6)) {
        return Box::pin(connection.page(original.port())).await;
    }
    serve(connection).await;
}

/// Serves what comes through a tunnel that the client asked an explicit proxy for. `trusted`: whether the client is of this run; for
/// anybody else nothing is opened.
pub async fn serve_tunnel(client: TcpStream, asked: Target, trusted: bool, context: Arc<Context>) {
    drop(client.set_nodelay(true));
    serve(Connection { client, server: None, way: Way::Tunnel { asked, trusted }, context }).await;
}

/// Each stage is on the heap for as long as it lasts: what a connection needs while it is detected, it would else keep to its end.
async fn serve(connection: Connection) {
    if let Some((connection, detection)) = Box::pin(connection.detect()).await {
        connection.decide(detection).await;
    }
}

/// What is done with a connection, of its own size, which differs many times.
type Deed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How the client said where it wants to go.
enum Way {
    /// By the address it connected to, before the redirect.
    Address(SocketAddr),
    /// By name, in a CONNECT request (RFC 9110 §9.3.6). The name is looked up on this side.
    Tunnel { asked: Target, trusted: bool },
}

struct Connection {
    client: TcpStream,
    /// Dialled already, if the client was silent at first.
    server: Option<Outbound>,
    way: Way,
    context: Arc<Context>,
}

impl Connection {
    /// The page is no traffic that leaves, so no rule is about it. Nothing else is at its addresses.
    async fn page(self, port: u16) {
        if port == page::PORT {
            return page::serve(self.client, self.context).await;
        }
        let mut guard = self.begin("tcp", self.address_target());
        guard.verdict(Verdict::Refused, "mitm.it is at http://mitm.it alone");
        guard.blame(Blame::Downstream, "not port 80");
        opaque::reset(self.client);
    }

    /// `None`: over, and audited if anything was to be said about it.
    async fn detect(mut self) -> Option<(Self, Detection)> {
        let patience = if CLIENT_FIRST.contains(&self.port()) { SILENCE_HTTP } else { SILENCE };
        let speaks = match tokio::time::timeout(patience, self.client.peek(&mut [0])).await {
            Ok(peeked) => peeked.map(|_| Speaks::Client),
            Err(_) => {
                let target = self.address_target();
                match gate::silent(&self.context, &target, self.addr().map(|addr| addr.ip())) {
                    gate::Silent::Dial => self = self.dial("tcp", target).await?,
                    gate::Silent::Wait => {}
                    gate::Silent::Deny(deny) => {
                        self.deny("tcp", target, deny);
                        return None;
                    }
                }
                self.first_to_speak().await
            }
        };
        let detected = match speaks {
            Ok(Speaks::Client) => detect(&mut self.client).await,
            Ok(Speaks::Server) => Ok(Detection { detected: Detected::Opaque, seen: Vec::new() }),
            Err(error) => Err(DetectError::Read(error)),
        };
        match detected {
            Ok(detection) => Some((self, detection)),
            Err(error) => {
                let (protocol, verdict) = match error {
                    DetectError::Read(_) => ("tcp", Verdict::Failed),
                    DetectError::TooSlow | DetectError::TooLong => ("tls", Verdict::Refused),
                };
                let mut guard = self.begin(protocol, self.address_target());
                guard.verdict(verdict, error.to_string());
                guard.blame(Blame::Downstream, error.to_string());
                opaque::reset(self.client);
                None
            }
        }
    }

    /// Peeks, since readiness alone may be a false alarm.
    async fn first_to_speak(&mut self) -> io::Result<Speaks> {
        let Some(server) = &mut self.server else { return self.client.peek(&mut [0]).await.map(|_| Speaks::Client) };
        let mut first = [0];
        tokio::select! {
            biased;
            peeked = self.client.peek(&mut first) => peeked.map(|_| Speaks::Client),
            // An error of the server's is found again, and told, by the relay.
            _ = server.heard() => Ok(Speaks::Server),
        }
    }

    fn decide(self, Detection { detected, seen }: Detection) -> Deed {
        let target = match &detected {
            Detected::Tls(hello) => Target { host: hello.server_name.clone(), port: self.port() },
            Detected::TlsNoName | Detected::Http | Detected::Opaque => self.address_target(),
        };
        let ip = self.addr().map(|addr| addr.ip());
        let decision = match &detected {
            Detected::Tls(_) => gate::named(&self.context, &target, ip),
            Detected::TlsNoName => gate::addressed(&self.context, &target, ip, Protocol::Https),
            Detected::Http => gate::addressed(&self.context, &target, ip, Protocol::Http),
            Detected::Opaque => match detect::perhaps(&seen).map(|protocol| gate::addressed(&self.context, &target, ip, protocol)) {
                Some(decision @ (Decision::Deny(_) | Decision::Inspect)) => decision,
                _ => gate::addressed(&self.context, &target, ip, Protocol::Tcp),
            },
        };
        let decision = match self.barred(&target, decision) {
            Ok(decision) => decision,
            Err(Barred::Relay(reason)) => {
                let target = self.address_target();
                return Box::pin(self.relay(label(&detected), target, seen, reason.into()));
            }
            Err(Barred::Refuse(reason)) => return Box::pin(async move { self.refuse(target, reason) }),
        };
        match (detected, decision) {
            (Detected::Http, Decision::Deny(deny)) => Box::pin(self.deny_http(target, deny)),
            (Detected::Http, Decision::Inspect) => Box::pin(self.deny_http(target, gate::uninspectable())),
            (detected, Decision::Deny(deny)) => Box::pin(async move { self.deny(label(&detected), target, deny) }),
            (detected @ (Detected::TlsNoName | Detected::Opaque), Decision::Inspect) => {
                Box::pin(async move { self.deny(label(&detected), target, gate::uninspectable()) })
            }
            (Detected::Tls(hello), Decision::Inject(routes)) => self.open(hello, seen, target, Rules::Inject(routes)),
            (Detected::Tls(hello), Decision::Inspect) => self.open(hello, seen, target, Rules::Inspect),
            (Detected::Tls(_), Decision::Forward(why)) => {
                self.context.notices.forwarded(&target.host, &why);
                Box::pin(self.relay("tls", target, seen, notice::reason(&why).into()))
            }
            (Detected::TlsNoName, Decision::Inject(_) | Decision::Forward(_)) => {
                Box::pin(self.relay("tls", target, seen, "TLS that is older than 1.2 or names no host is never opened".into()))
            }
            (Detected::Http, Decision::Inject(_) | Decision::Forward(_)) => {
                if self.context.carries_placeholder(&seen) {
                    self.context.notices.placeholder(&target.host);
                }
                Box::pin(self.relay("http", target, seen, "plain HTTP is never injected".into()))
            }
            (Detected::Opaque, Decision::Inject(_) | Decision::Forward(_)) => {
                Box::pin(self.relay("tcp", target, seen, "neither TLS nor HTTP; forwarded unchanged".into()))
            }
        }
    }

    /// Of what a tunnel carries nothing is opened but this run's own TLS to the very host that the tunnel was asked for.
    fn barred(&self, target: &Target, decision: Decision) -> Result<Decision, Barred> {
        let Way::Tunnel { asked, trusted } = &self.way else { return Ok(decision) };
        let asked_for = gate::addressed(&self.context, asked, None, Protocol::Https);
        let opens = |decision: &Decision| matches!(decision, Decision::Inject(_) | Decision::Inspect);
        match (asked == target, &asked_for, &decision) {
            // What either name forbids is forbidden.
            (_, denied @ Decision::Deny(_), _) => Ok(denied.clone()),
            (_, _, Decision::Deny(_)) => Ok(decision),
            (_, Decision::Inspect, _) | (_, _, Decision::Inspect) if !trusted => Ok(Decision::Deny(gate::uninspectable())),
            (true, _, Decision::Inject(_)) if !trusted => Err(Barred::Relay("the client is not of this run; forwarded unchanged")),
            (true, ..) => Ok(decision),
            // A client that looks names up itself asks for an address.
            (false, _, Decision::Inject(_)) if matches!(asked.host, Host::Ip(_)) => {
                Err(Barred::Relay("the tunnel was asked for by address, not by name; not injected"))
            }
            (false, ..) if opens(&asked_for) || opens(&decision) => Err(Barred::Refuse("authority-mismatch")),
            (false, ..) => Err(Barred::Relay("the tunnel was asked for another host; forwarded unchanged")),
        }
    }

    fn refuse(self, target: Target, reason: &'static str) {
        let mut guard = self.begin("tls", target.clone());
        guard.verdict(Verdict::Refused, reason);
        guard.blame(Blame::Downstream, format!("the tunnel is for {}, but its TLS is for {target}", self.address_target()));
        opaque::reset(self.client);
    }

    fn open(self, hello: Box<Hello>, seen: Vec<u8>, target: Target, rules: Rules) -> Deed {
        let (Host::Name(name), true) = (target.host.clone(), hello.speaks_http()) else {
            let denied = match rules {
                Rules::Inject(_) => gate::relayed(&self.context, &target, self.addr().map(|addr| addr.ip())),
                Rules::Inspect => Some(gate::uninspectable()),
            };
            return match denied {
                Some(deny) => Box::pin(async move { self.deny("tls", target, deny) }),
                None => Box::pin(self.relay("tls", target, seen, "the client's ALPN names no HTTP; forwarded unchanged".into())),
            };
        };
        let destination = Destination { target, addr: self.chosen() };
        Box::pin(terminate(hello, name, self.client, destination, rules, self.context))
    }

    async fn relay(self, protocol: &'static str, target: Target, seen: Vec<u8>, reason: Cow<'static, str>) {
        let Some(connection) = Box::pin(self.dial(protocol, target.clone())).await else { return };
        let mut guard = connection.begin(protocol, target);
        guard.verdict(Verdict::Forwarded, reason);
        if let Some(server) = connection.server {
            opaque::relay(connection.client, server, seen, guard).await;
        }
    }

    /// Makes sure there is a server. `None`: it cannot be reached, which the child sees as a reset.
    async fn dial(mut self, protocol: &'static str, target: Target) -> Option<Self> {
        if self.server.is_some() {
            return Some(self);
        }
        let asked = match &self.way {
            Way::Address(_) => &target,
            Way::Tunnel { asked, .. } => asked,
        };
        match self.context.upstream.dial(asked, self.chosen()).await {
            Ok(server) => {
                self.server = Some(server);
                Some(self)
            }
            Err(error) => {
                if error.is_of_proxy() {
                    self.context.notices.upstream(error.about(&target.host), &error.to_string(), &error.hint());
                }
                let mut guard = self.begin(protocol, target);
                guard.verdict(Verdict::Failed, error.kind());
                guard.blame(Blame::Upstream, error.to_string());
                opaque::reset(self.client);
                None
            }
        }
    }

    fn deny(self, protocol: &'static str, target: Target, Deny::Policy(reason): Deny) {
        self.context.notices.denied(&target.host, &reason);
        self.begin(protocol, target).verdict(Verdict::Denied, reason);
        opaque::reset(self.client);
    }

    async fn deny_http(mut self, target: Target, Deny::Policy(reason): Deny) {
        let answer = format!("{DENIED}content-length: {}\r\n\r\nauthsome: {reason}\n", reason.len() + "authsome: \n".len());
        self.context.notices.denied(&target.host, &reason);
        let mut guard = self.begin("http", target);
        guard.verdict(Verdict::Denied, reason);
        guard.status(403);
        let answering = async {
            self.client.write_all(answer.as_bytes()).await?;
            self.client.shutdown().await?;
            // A close with bytes unread is a reset, which could overtake the answer (RFC 9112 §9.6).
            tokio::io::copy(&mut (&mut self.client).take(MAX_DRAINED), &mut tokio::io::sink()).await
        };
        drop(tokio::time::timeout(DRAIN_LIMIT, answering).await);
    }

    fn begin(&self, protocol: &'static str, target: Target) -> Guard {
        self.context.audit.begin(protocol, target, self.addr().map(|addr| addr.ip()))
    }

    /// Where the connection goes by what was asked for alone: the name the child was last told for the address, or the address itself.
    fn address_target(&self) -> Target {
        match &self.way {
            Way::Address(addr) => gate::address_target(&self.context, addr.ip(), addr.port()),
            Way::Tunnel { asked, .. } => asked.clone(),
        }
    }

    fn addr(&self) -> Option<SocketAddr> {
        match self.way {
            Way::Address(addr) => Some(addr),
            Way::Tunnel { .. } => None,
        }
    }

    /// The address to go to, if the client chose it: one that was made up for a name is no place to go to.
    fn chosen(&self) -> Option<SocketAddr> {
        self.addr().filter(|addr| !self.context.names.made_up(addr.ip()))
    }

    fn port(&self) -> u16 {
        match &self.way {
            Way::Address(addr) => addr.port(),
            Way::Tunnel { asked, .. } => asked.port,
        }
    }
}

/// Why a decision does not apply to a tunnel.
enum Barred {
    Relay(&'static str),
    Refuse(&'static str),
}

enum Speaks {
    Client,
    Server,
}

fn label(detected: &Detected) -> &'static str {
    match detected {
        Detected::Tls(_) | Detected::TlsNoName => "tls",
        Detected::Http => "http",
        Detected::Opaque => "tcp",
    }
}

/// Opens the TLS and serves the requests in it.
async fn terminate(hello: Box<Hello>, name: Name, client: TcpStream, destination: Destination, rules: Rules, context: Arc<Context>) {
    let error = match Box::pin(tls::terminate(hello, &name, client, &destination, &context)).await {
        Ok(opened) => match http::serve(opened, destination.clone(), rules, context.clone()).await {
            http::Ended::Served => return,
            http::Ended::Unused => tls::TerminateError::Rejected,
        },
        Err(error) => error,
    };
    let host = destination.target.host.clone();
    // Begun before anything is waited for, so that the run's end waits, too.
    let mut guard = context.audit.begin("tls", destination.target, destination.addr.map(|addr| addr.ip()));
    guard.verdict(Verdict::Failed, error.to_string());
    let blame = if matches!(error, tls::TerminateError::Leaf(_)) { Blame::Internal } else { Blame::Downstream };
    guard.blame(blame, error.to_string());
    match error {
        tls::TerminateError::Rejected => {
            let context = context.clone();
            // It looks at every process, once per host.
            drop(tokio::task::spawn_blocking(move || context.notices.rejected(&host, remedy::of_running)).await);
        }
        tls::TerminateError::Handshake(_) => context.notices.handshake(&host, &error.to_string()),
        tls::TerminateError::Leaf(_) | tls::TerminateError::Gone | tls::TerminateError::TooSlow => {}
    }
}
