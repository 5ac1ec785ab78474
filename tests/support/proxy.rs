//! One proxy on loopback, real origins behind it, real clients before it. There is no redirect here, so the listener says where
//! each connection was going.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use authsome::{
    audit,
    credential::{Credential, Grant, LazyNeedles, Needles, Resolver, Unavailable},
    dns::Names,
    provider::{PLACEHOLDER, Provider, ProviderName, Source},
    proxy::{Context, Notices, serve_connection, tls::Authority},
    route::{Route, Table, policy::Policy},
    secret::Secret,
    upstream::{Body, BoxError, Options, Upstream},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The host that the one provider of these tests claims, on whatever port the origin has.
pub const NAME: &str = "api.acme.test";
pub const KEY: &str = "sk-live-0123456789abcdef";
/// What a definition may have instead of the usual one.
pub const OTHER_PLACEHOLDER: &str = "AC00000000000000000000000000000000";

/// A throw-away root for origins.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub der: CertificateDer<'static>,
    pem: tempfile::NamedTempFile,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let pem = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(pem.path(), certificate.pem()).unwrap();
        Self { der: certificate.der().clone(), issuer: Issuer::new(params, key), pem }
    }

    pub fn acceptor(&self, name: &str, alpn: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What an origin saw of one request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub uri: String,
    pub version: http::Version,
    pub headers: HeaderMap,
}

/// A TLS server that records what it is asked.
pub struct Origin {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// What `/events` sends, one event per item; the first makes `/abort` break off.
    pub events: mpsc::UnboundedSender<Bytes>,
}

type Events = Arc<Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>>;

impl Origin {
    pub async fn start(ca: &Ca, name: &str, alpn: &[&str]) -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        let (seen, receiver) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Some(receiver))));
        let ours = seen.clone();
        let addr = tls_server(ca.acceptor(name, alpn), move |stream| serve(stream, ours.clone(), receiver.clone())).await;
        Self { addr, seen, events }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(stream: server::TlsStream<TcpStream>, seen: Arc<Mutex<Vec<Seen>>>, events: Events) {
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let (seen, events) = (seen.clone(), events.clone());
        async move { Ok::<_, Infallible>(answer(request, &seen, &events)) }
    });
    let io = TokioIo::new(stream);
    if h2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.enable_connect_protocol().serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await;
    }
}

fn answer(mut request: Request<Incoming>, seen: &Mutex<Vec<Seen>>, events: &Events) -> Response<Body> {
    seen.lock().unwrap().push(Seen { uri: request.uri().to_string(), version: request.version(), headers: request.headers().clone() });
    let response = Response::builder();
    match request.uri().path() {
        "/echo" => response.header("trailer", "x-check").body(request.into_body().map_err(Into::into).boxed()),
        "/early" => response.status(StatusCode::FORBIDDEN).body(text("no need to read on")),
        "/events" => {
            let mut receiver = events.lock().unwrap().take().unwrap();
            let stream = polled(move |cx| receiver.poll_recv(cx).map(|event| event.map(|data| Ok(Frame::data(data)))));
            response.header("content-type", "text/event-stream").body(stream)
        }
        "/abort" => {
            let mut receiver = events.lock().unwrap().take().unwrap();
            let mut first = Some(Ok(Frame::data(Bytes::from_static(b"partial"))));
            response.body(polled(move |cx| match first.take() {
                Some(frame) => std::task::Poll::Ready(Some(frame)),
                None => receiver.poll_recv(cx).map(|_| Some(Err("broken".into()))),
            }))
        }
        "/204" => response.status(204).body(empty()),
        "/304" => response.status(304).header("etag", "\"a\"").body(empty()),
        "/head" => response.header("content-length", "1234").body(empty()),
        "/upgrade" => {
            let status = if request.version() == http::Version::HTTP_2 { 200 } else { 101 };
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 64];
                while let Ok(n @ 1..) = io.read(&mut buffer).await {
                    io.write_all(&buffer[..n].to_ascii_uppercase()).await.unwrap();
                }
                io.shutdown().await.unwrap();
            });
            match status {
                101 => response.status(101).header("connection", "upgrade").header("upgrade", "shout").body(empty()),
                _ => response.body(empty()),
            }
        }
        _ => response.header("x-origin", "yes").body(text("ok")),
    }
    .unwrap()
}

/// Up to the empty line, octet by octet. `None`: the stream ended before.
#[allow(dead_code, reason = "not every suite has raw streams")]
pub async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub fn text(text: &'static str) -> Body {
    octets(text)
}

pub fn octets(octets: impl Into<Bytes>) -> Body {
    Full::new(octets.into()).map_err(|never| match never {}).boxed()
}

/// A body from a poll function.
fn polled(
    poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> + Send + Sync + 'static + Unpin,
) -> Body {
    struct Polled<F>(F);
    impl<F> http_body::Body for Polled<F>
    where
        F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> + Unpin,
    {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            (self.0)(cx)
        }
    }
    Polled(poll).boxed()
}

/// A body fed by hand.
pub fn channel() -> (mpsc::UnboundedSender<Frame<Bytes>>, Body) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    (sender, polled(move |cx| receiver.poll_recv(cx).map(|frame| frame.map(Ok))))
}

/// A TLS server whose every connection goes to `serve`.
pub async fn tls_server<F>(acceptor: TlsAcceptor, serve: impl Fn(server::TlsStream<TcpStream>) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    tcp_server(move |tcp| {
        let (accept, serve) = (acceptor.accept(tcp), serve.clone());
        async move {
            if let Ok(stream) = accept.await {
                serve(stream).await;
            }
        }
    })
    .await
}

/// A TCP server whose every connection goes to `serve`.
pub async fn tcp_server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    addr
}

/// Gives every provider the same key, or none.
struct OneKey {
    provider: Provider,
    available: bool,
    scrub: bool,
}

impl Resolver for OneKey {
    fn resolve<'a>(&'a self, name: &'a ProviderName) -> Pin<Box<dyn Future<Output = Result<Grant, Unavailable>> + Send + 'a>> {
        let grant = if self.available {
            let fields = [("api_key".to_owned(), Secret::new(KEY.to_owned()))].into();
            Ok(Grant {
                needles: if self.scrub { Needles::new([KEY]) } else { None },
                provider: name.clone(),
                injection: self.provider.injection.clone(),
                credential: Arc::new(Credential { fields }),
                placeholder: PLACEHOLDER.into(),
            })
        } else {
            Err(Unavailable { message: "acme: the token could not be refreshed".into(), hint: "authsome login acme".into() })
        };
        Box::pin(std::future::ready(grant))
    }
}

/// How a test's proxy differs from the usual.
pub struct Setup<'a> {
    /// `api_url` of the provider `acme`.
    pub api_url: String,
    pub passthrough: &'a [&'a str],
    pub available: bool,
    /// Whether the key is filled in where it comes back.
    pub scrub: bool,
    pub rivals: usize,
    pub allow: &'a [&'a str],
    pub deny: &'a [&'a str],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { api_url: format!("https://{NAME}"), passthrough: &[], available: true, scrub: false, rivals: 0, allow: &[], deny: &[] }
    }
}

pub struct Proxy {
    pub addr: SocketAddr,
    pub context: Arc<Context>,
    said: Arc<Mutex<Vec<String>>>,
    audit: tempfile::TempDir,
}

impl Proxy {
    /// Claims [`NAME`] on the origin's port; every connection was going to the origin.
    pub async fn before(origin: SocketAddr, ca: &Ca) -> Self {
        let api_url = format!("https://{NAME}:{}", origin.port());
        Self::with(origin, ca, Setup { api_url, ..Setup::default() }).await
    }

    pub async fn with(original: SocketAddr, ca: &Ca, setup: Setup<'_>) -> Self {
        let audit = tempfile::tempdir().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = said.clone();
        let parse = |name: &str| {
            let text = serde_json::json!({
                "schema_version": 1, "name": name, "display_name": name, "auth_type": "api_key", "flow": "api_key", "api_url": setup.api_url,
                "api_key": { "header_name": "Authorization", "header_prefix": "Bearer" },
            });
            Provider::parse(&text.to_string(), Source::Bundled, None).unwrap()
        };
        let providers = std::iter::once("acme".to_owned()).chain((0..setup.rivals).map(|i| format!("rival-{i}"))).map(|name| parse(&name));
        let routes = providers.flat_map(|provider| {
            let name = provider.name.clone();
            provider.api_urls.into_iter().map(move |url| Route { provider: name.clone(), url })
        });
        let passthrough = setup.passthrough.iter().map(|host| host.parse().unwrap()).collect();
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let context = Arc::new(Context {
            routes: Table::new(routes.collect(), Vec::new(), passthrough),
            policy: Policy::new(rules(setup.allow), rules(setup.deny)),
            resolver: Box::new(OneKey { provider: parse("acme"), available: setup.available, scrub: setup.scrub }),
            upstream: Upstream::new(Options {
                extra_roots: vec![ca.pem.path().to_owned()],
                connect_timeout: Duration::from_secs(20),
                allow_host_addresses: true,
                named_addresses: Vec::new(),
                proxies: Default::default(),
            }),
            audit: audit::Log::open(&audit.path().join("audit.jsonl"), "test", 10 << 20).unwrap(),
            names: Arc::new(Names::default()),
            notices: Notices::new(2, move |line| sink.lock().unwrap().push(line.to_owned())),
            authority: Authority::new().unwrap(),
            placeholders: LazyNeedles::new(Box::new(|| Needles::new([PLACEHOLDER, OTHER_PLACEHOLDER]))),
        });
        let ours = context.clone();
        let addr = tcp_server(move |stream| serve_connection(stream, original, ours.clone())).await;
        Self { addr, context, said, audit }
    }

    pub async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// TLS to `name`, trusting only this run's authority.
    pub async fn tls(&self, name: &str, alpn: &[&str]) -> std::io::Result<client::TlsStream<TcpStream>> {
        self.tls_trusting(self.context.authority.certificate_der(), name, alpn).await
    }

    pub async fn tls_trusting(
        &self,
        root: &CertificateDer<'_>,
        name: &str,
        alpn: &[&str],
    ) -> std::io::Result<client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.tcp().await).await
    }

    /// An HTTP client on one connection to [`NAME`], with room for large header sections.
    pub async fn client(&self, alpn: &[&str]) -> Client {
        let stream = self.tls(NAME, alpn).await.unwrap();
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if h2 {
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.max_header_list_size(1 << 20).handshake(io).await.unwrap();
            tokio::spawn(connection);
            Client::H2(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::Builder::new().max_headers(2000).handshake(io).await.unwrap();
            tokio::spawn(connection.with_upgrades());
            Client::Http1(sender)
        }
    }

    /// Sends raw bytes inside TLS without ALPN and reads until the proxy closes or `until` is in the answer.
    pub async fn raw(&self, request: &[u8], until: &str) -> String {
        let mut stream = self.tls(NAME, &[]).await.unwrap();
        // The proxy may hang up before it has read all.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&answer).contains(until) {
            match stream.read(&mut chunk).await {
                Ok(n @ 1..) => answer.extend_from_slice(&chunk[..n]),
                Ok(0) | Err(_) => break,
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// The audit's records once there are `count`.
    pub async fn records(&self, count: usize) -> Vec<serde_json::Value> {
        loop {
            self.context.audit.flush().unwrap();
            let text = std::fs::read_to_string(self.audit.path().join("audit.jsonl")).unwrap();
            let records: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if records.len() >= count {
                return records;
            }
            tokio::task::yield_now().await;
        }
    }
}

pub enum Client {
    Http1(hyper::client::conn::http1::SendRequest<Body>),
    H2(hyper::client::conn::http2::SendRequest<Body>),
}

impl Client {
    /// Fills in the host as the connection's protocol says it.
    pub async fn send(&mut self, port: u16, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let path = request.uri().path_and_query().unwrap().to_string();
        match self {
            Self::Http1(sender) => {
                request.headers_mut().insert("host", format!("{NAME}:{port}").parse().unwrap());
                sender.send_request(request).await
            }
            Self::H2(sender) => {
                *request.uri_mut() = format!("https://{NAME}:{port}{path}").parse().unwrap();
                *request.version_mut() = http::Version::HTTP_2;
                sender.send_request(request).await
            }
        }
    }
}
