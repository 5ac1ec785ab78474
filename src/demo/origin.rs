//! The demonstration's internet: one HTTPS server with a certificate authority of its own, and the DNS server that knows it.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType, rdata},
};
use hyper::{Request, Response, body::Incoming, header::AUTHORIZATION, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::runtime;
use tokio_rustls::TlsAcceptor;

use super::HOST;

/// What the server's requests carried in `Authorization`, in order.
pub type Received = Arc<Mutex<Vec<String>>>;

/// A throw-away root and the server's configuration under it.
pub struct Identity {
    pub root_pem: String,
    config: Arc<ServerConfig>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub fn identity() -> Result<Identity, BoxError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![HOST.to_owned()])?.signed_by(&key, &root)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    Ok(Identity { root_pem: root.pem(), config: Arc::new(config) })
}

/// Serves on sockets bound in the internet's namespace, on a thread of its own, until the process ends.
pub fn serve(identity: Identity, https: TcpListener, dns: UdpSocket, address: IpAddr) -> io::Result<Received> {
    let received = Received::default();
    let seen = received.clone();
    std::thread::Builder::new().name("origin".into()).spawn(move || answer(&dns, address))?;
    https.set_nonblocking(true)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("https".into()).spawn(move || runtime.block_on(accept(identity, https, seen)))?;
    Ok(received)
}

async fn accept(identity: Identity, https: TcpListener, received: Received) -> io::Result<()> {
    let (acceptor, listener) = (TlsAcceptor::from(identity.config), tokio::net::TcpListener::from_std(https)?);
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, received) = (acceptor.clone(), received.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let value = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("(none)").to_owned();
                received.lock().unwrap_or_else(PoisonError::into_inner).push(value);
                async { Ok::<_, Infallible>(Response::new("hello\n".to_owned())) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Answers A queries for the one name there is; everything else does not exist.
fn answer(dns: &UdpSocket, address: IpAddr) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = dns.recv_from(&mut buffer) {
        let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
        if let Some(bytes) = response(&query, address) {
            let _ = dns.send_to(&bytes, from);
        }
    }
}

fn response(query: &Message, address: IpAddr) -> Option<Vec<u8>> {
    let question = query.queries.first()?;
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    debug_assert_eq!(reply.metadata.message_type, MessageType::Response);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(question.clone());
    let ours = question.name().to_ascii().trim_end_matches('.').eq_ignore_ascii_case(HOST);
    match (ours, question.query_type(), address) {
        (true, RecordType::A, IpAddr::V4(v4)) => {
            reply.add_answer(Record::from_rdata(question.name().clone(), 60, RData::A(rdata::A(v4))));
        }
        (true, ..) => {}
        (false, ..) => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    reply.to_vec().ok()
}
