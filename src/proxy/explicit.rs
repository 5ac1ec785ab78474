//! The other way in: an explicit HTTP proxy for clients that were told of it by HTTPS_PROXY (RFC 9110 §7.3.2, RFC 9112 §3.2.2 and §3.2.3).
//!
//! A CONNECT request becomes a tunnel, which is served like a redirected connection. Plain HTTP goes on unchanged, never injected.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::{body::Incoming, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::{
    Context, Run,
    accept::accept_loop,
    connection::serve_tunnel,
    gate,
    http::{Exchange, Refusal, check_coding, hop, http1, interim, returned, upgrade, with_length},
    opaque, page,
};
use crate::{
    audit::{Blame, Guard, Verdict},
    host::{Host, Target},
    route::{Decision, Deny, policy::Protocol},
    upstream::{self, Body, InsertStream, Inserts, fields},
};

/// Where a URL of plain HTTP names no port (RFC 9110 §4.2.1).
const HTTP: u16 = 80;

/// Serves the clients of `listener` until the runtime ends; only those of `run` have anything injected.
pub async fn serve(listener: std::net::TcpListener, run: Run, context: Arc<Context>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let proxy = listener.local_addr()?;
    let run = Arc::new(run);
    let serve = move |stream, client| connection(stream, Client { addr: client, proxy, run: run.clone(), shown: None }, context.clone());
    match accept_loop(TcpListener::from_std(listener)?, Arc::new(Notify::new()), serve).await {}
}

/// Who is at the other end, as far as it is known without asking.
#[derive(Clone)]
struct Client {
    addr: SocketAddr,
    proxy: SocketAddr,
    run: Arc<Run>,
    /// What the request says of it.
    shown: Option<HeaderValue>,
}

impl Client {
    async fn is_of_the_run(&self) -> bool {
        let client = self.clone();
        tokio::task::spawn_blocking(move || client.run.owns(client.addr, client.proxy, client.shown.as_ref())).await.unwrap_or(false)
    }
}

async fn connection(stream: TcpStream, client: Client, context: Arc<Context>) {
    drop(stream.set_nodelay(true));
    let inserts = Inserts::default();
    let stream = InsertStream::new(stream, inserts.clone());
    let service = service_fn(move |request| {
        let (client, context, inserts) = (client.clone(), context.clone(), inserts.clone());
        async move {
            let answer = answer(request, client, context, &inserts).await;
            inserts.interim_taken().await;
            Ok::<_, Infallible>(answer)
        }
    });
    if let Err(error) = http1().serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "proxy connection ended");
    }
}

async fn answer(request: Request<Incoming>, client: Client, context: Arc<Context>, inserts: &Inserts) -> Response<Body> {
    let client = Client { shown: request.headers().get(header::PROXY_AUTHORIZATION).cloned(), ..client };
    if let Some(target) = page_asked(&request) {
        return page(&request, &target, client, &context).await.unwrap_or_else(|refusal| refusal.response());
    }
    let uploads = !request.body().is_end_stream();
    let answered = match *request.method() {
        Method::CONNECT => connect(request, client, context),
        _ => forward(request, &context, inserts).await,
    };
    answered.unwrap_or_else(|refusal| {
        let mut response = refusal.response();
        if uploads {
            hop::close(response.headers_mut());
        }
        response
    })
}

/// Where the request goes, if it is to the page's host: by its target, or by Host where it is asked as an origin is.
fn page_asked(request: &Request<Incoming>) -> Option<Target> {
    let host = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map_or_else(host, |authority| Some(authority.as_str()))?;
    target(authority, Some(HTTP)).filter(|target| page::is_at(&target.host))
}

/// The page, for the run alone. Nothing that is asked of its host goes on.
async fn page(request: &Request<Incoming>, target: &Target, client: Client, context: &Context) -> Result<Response<Body>, Refusal> {
    let plain = request.uri().scheme().is_none_or(|scheme| *scheme == http::uri::Scheme::HTTP);
    if *request.method() == Method::CONNECT || !plain || target.port != page::PORT {
        return Err(bad_request("mitm.it is at http://mitm.it alone"));
    }
    if !client.is_of_the_run().await {
        let message = "the page is for programs of this run".to_owned();
        return Err(Refusal { status: StatusCode::FORBIDDEN, kind: "stranger", message, hint: "authsome ca export".to_owned() });
    }
    Ok(page::answer(request, &context.authority, page::Lifetime::Stored))
}

/// Grants the tunnel. Whether its end can be reached shows inside: what it carries decides who dials.
fn connect(mut request: Request<Incoming>, client: Client, context: Arc<Context>) -> Result<Response<Body>, Refusal> {
    let asked = request.uri().authority().and_then(|authority| target(authority.as_str(), None));
    let asked = asked.ok_or_else(|| bad_request("CONNECT needs host:port (RFC 9110 §9.3.6)"))?;
    if let Some(reason) = gate::tunnel(&context, &asked) {
        let mut guard = context.audit.begin("connect", asked.clone(), None);
        return Err(forbidden(&context, &asked, &mut guard, reason));
    }
    let opens = matches!(gate::named(&context, &asked, None), Decision::Inject(_) | Decision::Inspect);
    if let Some(challenge) = Run::CHALLENGE.filter(|_| opens && client.shown.is_none()) {
        return Ok(challenged(challenge));
    }
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrading.await else { return };
        match raw(upgraded) {
            Ok(stream) => {
                let trusted = opens && client.is_of_the_run().await;
                serve_tunnel(stream, asked, trusted, context).await;
            }
            Err(stream) => {
                let mut guard = context.audit.begin("tcp", asked, None);
                guard.verdict(Verdict::Refused, "bytes before the tunnel was granted");
                guard.blame(Blame::Downstream, "the client did not wait for the answer to CONNECT");
                if let Some(stream) = stream {
                    opaque::reset(stream);
                }
            }
        }
    });
    Ok(Response::new(upstream::empty()))
}

fn challenged(challenge: &'static str) -> Response<Body> {
    let mut response = Response::new(upstream::empty());
    *response.status_mut() = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    response.headers_mut().insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

/// The socket under a granted tunnel. `Err`: bytes that came too early would be lost, or taken for an answer of another kind.
fn raw(upgraded: Upgraded) -> Result<TcpStream, Option<TcpStream>> {
    match upgraded.downcast::<TokioIo<InsertStream<TcpStream>>>() {
        Ok(parts) if parts.read_buf.is_empty() => Ok(parts.io.into_inner().into_inner()),
        Ok(parts) => Err(Some(parts.io.into_inner().into_inner())),
        Err(_) => Err(None),
    }
}

/// Sends one request of plain HTTP on, as it is but for what concerns this connection alone.
async fn forward(mut request: Request<Incoming>, context: &Context, inserts: &Inserts) -> Result<Response<Body>, Refusal> {
    let target = absolute(request.uri())?;
    let mut guard = context.audit.begin("http/1.1", target.clone(), None);
    guard.request(request.method().as_str(), request.uri().path());
    let denied = match gate::addressed(context, &target, None, Protocol::Http) {
        Decision::Deny(deny) => Some(deny),
        Decision::Inspect => Some(gate::uninspectable()),
        Decision::Inject(_) | Decision::Forward(_) => None,
    };
    if let Some(Deny::Policy(reason)) = denied {
        return Err(forbidden(context, &target, &mut guard, reason));
    }
    guard.verdict(Verdict::Forwarded, "plain HTTP is never injected");
    let exchange = Exchange::new(guard, request.body());
    let child = upgrade::asked(&mut request);
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    if parts.headers.get_all(header::HOST).iter().any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
        exchange.record(|guard| guard.verdict(Verdict::Refused, "authority-mismatch"));
        return Err(refused(&exchange, bad_request("the Host field names another host than the request's target")));
    }
    check_coding(&exchange, &parts).map_err(|refusal| refused(&exchange, refusal))?;
    context.tell_placeholder(&target.host, &parts);
    hop::strip(&mut parts.headers, child.is_some());
    fields::retain(&mut parts.headers, |name| *name != header::PROXY_AUTHORIZATION);
    parts.headers.insert(header::HOST, HeaderValue::from_str(&authority).map_err(|_| bad_request("the target is not a host and port"))?);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().map_err(|_| bad_request("the target's path cannot be sent on"))?;
    let mut request = Request::from_parts(parts, exchange.request_body(body));
    interim::pass_on(&mut request, inserts, None, exchange.hits());
    *request.version_mut() = http::Version::HTTP_11;
    match context.upstream.send_plain(&target, request).await {
        Ok(response) => {
            let response =
                returned(response, upstream::Protocol::Http1, child, &exchange).map_err(|refusal| refused(&exchange, refusal))?;
            exchange.answered(response.status());
            Ok(with_length(response.map(|body| exchange.response_body(body)), upstream::Protocol::Http1))
        }
        Err(error) => {
            if error.is_of_proxy() {
                context.notices.upstream(error.about(&target.host), &error.to_string(), &error.hint());
            }
            exchange.record(|guard| {
                guard.verdict(Verdict::Failed, error.kind());
                guard.blame(Blame::Upstream, error.to_string());
            });
            let refusal = Refusal { status: StatusCode::BAD_GATEWAY, kind: error.kind(), message: error.to_string(), hint: error.hint() };
            Err(refused(&exchange, refusal))
        }
    }
}

fn forbidden(context: &Context, target: &Target, guard: &mut Guard, reason: String) -> Refusal {
    context.notices.denied(&target.host, &reason);
    guard.verdict(Verdict::Denied, reason.clone());
    Refusal { status: StatusCode::FORBIDDEN, kind: "denied", message: reason, hint: String::new() }
}

fn refused(exchange: &Exchange, refusal: Refusal) -> Refusal {
    exchange.answered(refusal.status);
    refusal
}

/// The target of a request for a proxy: an absolute URL of plain HTTP (RFC 9112 §3.2.2).
pub(crate) fn absolute(uri: &Uri) -> Result<Target, Refusal> {
    let Some(authority) = uri.authority() else {
        return Err(bad_request("this is a proxy: it takes CONNECT host:port and http:// URLs (set HTTPS_PROXY and HTTP_PROXY to it)"));
    };
    // Some clients write the upgrade to WebSocket as the user wrote its URL (RFC 6455 §3).
    if !matches!(uri.scheme_str(), Some("http" | "ws")) {
        return Err(bad_request("an https:// URL is asked for with CONNECT host:port, so that its TLS begins at the client"));
    }
    target(authority.as_str(), Some(HTTP)).ok_or_else(|| bad_request("the target is not a host and port"))
}

/// `host[:port]`, without user information (RFC 9110 §4.2.4).
pub(crate) fn target(authority: &str, default: Option<u16>) -> Option<Target> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port.parse().ok().filter(|_| !port.starts_with('+'))?),
        _ => (authority, default?),
    };
    let host: Host = host.parse().ok()?;
    (port != 0).then_some(Target { host, port })
}

fn bad_request(message: &str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, kind: "proxy-request", message: message.to_owned(), hint: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let show = |text: &str, default| target(text, default).map(|target| target.to_string());
        assert_eq!(show("Api.Acme.test:443", None).as_deref(), Some("api.acme.test:443"));
        assert_eq!(show("[2001:db8::1]:443", None).as_deref(), Some("[2001:db8::1]:443"));
        assert_eq!(show("acme.test", Some(80)).as_deref(), Some("acme.test:80"));
        for wrong in
            ["acme.test", "acme.test:", "acme.test:0", "acme.test:+1", "acme.test:65536", "user@acme.test:443", "[2001:db8::1]", ""]
        {
            assert_eq!(show(wrong, None), None, "{wrong}");
        }
    }

    #[test]
    fn only_absolute_urls_of_plain_http() {
        let status = |uri: &str| absolute(&uri.parse().unwrap()).map_err(|refusal| refusal.status);
        for right in ["http://acme.test/a", "ws://acme.test/a"] {
            assert_eq!(status(right).unwrap().to_string(), "acme.test:80");
        }
        for wrong in ["/a", "*", "https://acme.test/", "wss://acme.test/", "ftp://acme.test/", "http://user:pass@acme.test/"] {
            assert_eq!(status(wrong), Err(StatusCode::BAD_REQUEST), "{wrong}");
        }
    }
}
