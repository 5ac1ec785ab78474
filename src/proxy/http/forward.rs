//! One request: authority, route, credential, upstream, response. The order is the security of it.

use std::sync::{Arc, PoisonError, atomic::Ordering::Relaxed};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header, request::Parts};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use super::{
    authority, exchange::Exchange, hop, interim, linger::Lingering, respond::Refusal, scrub::Scrubbed, serve::Rules, serve::Session,
    upgrade,
};
use crate::{
    audit::{Blame, Verdict},
    credential::{self, Authorized, Needles, Permit},
    defence::crash_on,
    proxy::{gate, notice},
    route::{Forward, RequestDecision},
    upstream::{Body, BoxError, Protocol, UpstreamError},
};

/// Answers one request, with the server's response or with ours; recorded once whatever happens. Where the server's connection broke before
/// its response, so does the child's stream: any answer would be one that no server gave. Where the server did not process it, the child may try
/// again (RFC 9113 §8.7).
pub async fn forward(session: Arc<Session>, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let exchange = begin(&session, &request);
    let attempted = attempt(&session, &exchange, request).await;
    // hyper writes the answer as soon as it has it.
    session.inserts.interim_taken().await;
    match attempted {
        Ok(response) => {
            exchange.answered(response.status());
            Ok(response)
        }
        Err(Failure::Refused(refusal)) => {
            let mut response = refusal.response();
            if session.protocol == Protocol::Http1 && exchange.is_uploading() {
                hop::close(response.headers_mut());
            }
            exchange.answered(refusal.status);
            Ok(response.map(|body| exchange.response_body(body)))
        }
        Err(Failure::Broken(error)) if error.is_unprocessed() => Err(h2::Error::from(h2::Reason::REFUSED_STREAM).into()),
        Err(Failure::Broken(error)) => Err(error.into()),
    }
}

/// Why a request has no response of the server's.
enum Failure {
    Refused(Refusal),
    Broken(UpstreamError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn begin(session: &Session, request: &Request<Incoming>) -> Arc<Exchange> {
    let protocol = match session.protocol {
        Protocol::Http1 => "http/1.1",
        Protocol::H2 => "h2",
    };
    let destination = &session.destination;
    let mut guard = session.context.audit.begin(protocol, destination.target.clone(), destination.addr.map(|addr| addr.ip()));
    guard.request(request.method().as_str(), request.uri().path());
    Exchange::new(guard, request.body())
}

async fn attempt(session: &Session, exchange: &Arc<Exchange>, mut request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let child = upgrade::asked(&mut request);
    let (mut parts, body) = request.into_parts();
    let body = Lingering::new(body, parts.version, session.watch.clone());
    check_authority(session, exchange, &parts)?;
    check_policy(session, exchange, &parts)?;
    check_coding(exchange, &parts)?;
    let permit = permit(session, exchange, &parts).await?;
    crash_on(parts.uri.path().as_bytes());
    let (needles, provider) = match &permit {
        Permit::Inject { grant, .. } => (grant.needles.clone(), Some(grant.provider.clone())),
        Permit::Unchanged(_) => (None, None),
    };
    hop::strip(&mut parts.headers, child.is_some());
    parts.extensions.insert(session.farewell.clone());
    let mut request = Request::from_parts(parts, exchange.request_body(body));
    interim::pass_on(&mut request, &session.inserts, needles.clone(), exchange.hits());
    let authorized = credential::apply(permit, request).map_err(|error| {
        exchange.record(|guard| {
            guard.verdict(Verdict::Failed, "credential-unusable");
            guard.blame(Blame::Internal, error.to_string());
        });
        Refusal { status: StatusCode::BAD_GATEWAY, kind: "credential-unusable", message: error.to_string(), hint: String::new() }
    })?;
    let response = send(session, exchange, authorized).await?;
    if let Some(provider) = provider {
        session.context.notices.injected(&session.destination.target.host, provider.as_str());
    }
    let response = returned(response, session.protocol, child, exchange)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && session.protocol == Protocol::Http1 {
        session.ending.upgraded();
    }
    Ok(with_length(scrubbed(response, needles, exchange), session.protocol))
}

fn check_authority(session: &Session, exchange: &Exchange, parts: &Parts) -> Result<(), Refusal> {
    authority::agree(parts, &session.destination.target).map_err(|mismatch| {
        exchange.record(|guard| {
            guard.verdict(Verdict::Refused, "authority-mismatch");
            guard.blame(Blame::Downstream, mismatch.to_string());
        });
        Refusal { status: mismatch.status(), kind: "authority-mismatch", message: mismatch.to_string(), hint: String::new() }
    })
}

/// What the user's rules forbid never leaves.
fn check_policy(session: &Session, exchange: &Exchange, parts: &Parts) -> Result<(), Refusal> {
    let destination = &session.destination;
    let (method, path) = (upgrade::method(parts), parts.uri.path());
    let addr = destination.addr.map(|addr| addr.ip());
    let Some(denial) = gate::request(&session.context, &destination.target, addr, method, path) else { return Ok(()) };
    session.context.notices.denied(&destination.target.host, &denial.to_string());
    exchange.record(|guard| guard.verdict(Verdict::Denied, denial.to_string()));
    let message = format!("{method} {}{path}: {denial}", destination.target.host);
    Err(Refusal { status: StatusCode::FORBIDDEN, kind: "denied", message, hint: denial.hint() })
}

/// Routes by path and finds the credential; says and records which it was.
async fn permit(session: &Session, exchange: &Exchange, parts: &Parts) -> Result<Permit, Refusal> {
    let decision = match &session.rules {
        Rules::Inject(routes) => routes.decide(parts.uri.path()),
        Rules::Inspect => RequestDecision::Forward(Forward::NoProvider),
    };
    match decision {
        RequestDecision::Forward(why) => {
            unchanged(session, exchange, parts, &why);
            Ok(Permit::Unchanged(why))
        }
        RequestDecision::Inject(route) => {
            exchange.record(|guard| guard.provider(&route.provider));
            match session.context.resolver.resolve(&route.provider).await {
                Ok(grant) => {
                    exchange.record(|guard| guard.verdict(Verdict::Injected, route.provider.as_str()));
                    Ok(Permit::Inject { grant, host: session.destination.target.host.clone() })
                }
                Err(unavailable) => {
                    exchange.record(|guard| {
                        guard.verdict(Verdict::Failed, "credential-unavailable");
                        guard.blame(Blame::Internal, unavailable.message.clone());
                    });
                    Err(Refusal {
                        status: StatusCode::BAD_GATEWAY,
                        kind: "credential-unavailable",
                        message: unavailable.message,
                        hint: unavailable.hint,
                    })
                }
            }
        }
    }
}

fn unchanged(session: &Session, exchange: &Exchange, parts: &Parts, why: &Forward) {
    let host = &session.destination.target.host;
    session.context.notices.forwarded(host, why);
    session.context.tell_placeholder(host, parts);
    exchange.record(|guard| guard.verdict(Verdict::Forwarded, notice::reason(why)));
}

async fn send(
    session: &Session,
    exchange: &Exchange,
    request: Authorized<Body>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + Unpin + 'static + use<>>, Failure> {
    let earlier = session.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    let sent = match earlier {
        Some(failure) => Err(failure),
        None => session.context.upstream.send(&session.destination, request).await,
    };
    sent.map_err(|error| {
        // What most servers make of a child that has said all; it is the child that left.
        if error.broke_off() && session.farewell.is_said() {
            return Failure::Broken(error);
        }
        let refusal = upstream_failed(session, exchange, &error);
        if error.broke_off() { Failure::Broken(error) } else { Failure::Refused(refusal) }
    })
}

fn upstream_failed(session: &Session, exchange: &Exchange, error: &UpstreamError) -> Refusal {
    let (message, hint) = (error.to_string(), error.hint());
    if let UpstreamError::RequestBody { .. } = error {
        exchange.record(|guard| {
            guard.verdict(Verdict::Failed, error.kind());
            guard.blame(Blame::Downstream, message.clone());
        });
        return Refusal { status: StatusCode::BAD_REQUEST, kind: error.kind(), message, hint };
    }
    session.context.notices.upstream(error.about(&session.destination.target.host), &message, &hint);
    exchange.record(|guard| {
        guard.verdict(Verdict::Failed, error.kind());
        guard.blame(Blame::Upstream, message.clone());
    });
    Refusal { status: StatusCode::BAD_GATEWAY, kind: error.kind(), message, hint }
}

/// RFC 9112 §6.1: 501 for a transfer coding that is not understood.
pub fn check_coding(exchange: &Exchange, parts: &Parts) -> Result<(), Refusal> {
    if !hop::is_coded(&parts.headers) {
        return Ok(());
    }
    let message = "the request has a transfer coding other than chunked";
    exchange.record(|guard| {
        guard.verdict(Verdict::Refused, "transfer-coding");
        guard.blame(Blame::Downstream, message);
    });
    Err(Refusal { status: StatusCode::NOT_IMPLEMENTED, kind: "transfer-coding", message: message.to_owned(), hint: String::new() })
}

fn unusable(message: &'static str, exchange: &Exchange) -> Refusal {
    exchange.record(|guard| {
        guard.verdict(Verdict::Failed, "upstream-protocol");
        guard.blame(Blame::Upstream, message);
    });
    Refusal { status: StatusCode::BAD_GATEWAY, kind: "upstream-protocol", message: message.to_owned(), hint: String::new() }
}

/// The server's response as the child gets it. What streams from here on is counted, and an error in it ends the child's stream as an error.
pub fn returned<B: http_body::Body>(
    mut response: Response<B>,
    speaks: Protocol,
    child: Option<OnUpgrade>,
    exchange: &Arc<Exchange>,
) -> Result<Response<B>, Refusal> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    // RFC 9110 §15.2.2: only to what the request offered; anything else would make the rest of the connection unreadable.
    if switched && child.is_none() {
        return Err(unusable("the server switched protocols unasked", exchange));
    }
    if hop::is_coded(response.headers()) && !response.body().is_end_stream() {
        return Err(unusable("the server's response has a transfer coding other than chunked", exchange));
    }
    // A CONNECT in HTTP/2 is granted by any 2xx (RFC 8441 §4).
    let connected = response.version() == Version::HTTP_2 && response.status().is_success();
    if let Some(child) = child.filter(|_| switched || connected) {
        upgrade::join(child, hyper::upgrade::on(&mut response), exchange.clone());
    }
    match speaks {
        // It has to say to what (RFC 9110 §15.5.22).
        Protocol::Http1 => {
            let names_protocol = switched || response.status() == StatusCode::UPGRADE_REQUIRED;
            // Nobody reads the rest of such a request, so that the child's connection can take no other.
            let closes = exchange.is_uploading() && hop::closes(&response);
            hop::strip(response.headers_mut(), names_protocol);
            if closes {
                hop::close(response.headers_mut());
            }
        }
        Protocol::H2 => {
            hop::strip(response.headers_mut(), false);
            if switched {
                upgrade::granted_in_h2(&mut response);
            }
        }
    }
    // The version on the way down is the child's, which hyper knows.
    *response.version_mut() = Version::default();
    Ok(response)
}

/// What was injected does not come back.
fn scrubbed<B>(response: Response<B>, needles: Option<Arc<Needles>>, exchange: &Arc<Exchange>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + Unpin + 'static,
{
    let (mut parts, body) = response.into_parts();
    let body = match needles {
        None => exchange.response_body(body),
        Some(needles) => {
            exchange.hits().fetch_add(needles.headers(&mut parts.headers), Relaxed);
            exchange.response_body(Scrubbed::new(body, &parts.headers, needles, exchange.hits()))
        }
    };
    Response::from_parts(parts, body)
}

/// The length of what a 304 stands for (RFC 9110 §8.6), which hyper leaves out in HTTP/1.1 where it knows that there is no body.
pub fn with_length(response: Response<Body>, speaks: Protocol) -> Response<Body> {
    let told = response.status() == StatusCode::NOT_MODIFIED && response.headers().contains_key(header::CONTENT_LENGTH);
    if told && speaks == Protocol::Http1 { response.map(|body| StreamBody::new(BodyStream::new(body)).boxed()) } else { response }
}
