//! The parsers of bytes that come from elsewhere, as the fuzzer calls them (`scripts/fuzz`). Only built for it.
//!
//! Nothing panics; where more can be said about what comes out, it is asserted.

use std::{
    path::Path,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::{Body, Frame};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{
    audit,
    certificate::{self, jks},
    config::{Config, File},
    credential::Needles,
    dns::{
        message::{Query, answers},
        resolv_conf, rewrite_answer,
    },
    host::{Host, Target},
    provider::{Provider, ProviderName, Source},
    proxy::{caller, detect::detect, explicit, http as proxied, process_tree},
    route::{
        ApiUrl, PathPrefix,
        policy::{Policy, Rule},
    },
    run::{mask, message, trust},
    vault::{ConnectionName, Record, key, seal},
};

/// A name for `scripts/fuzz` and what is done with each input.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("audit", audit_trail),
    ("config", |bytes| text(bytes, config)),
    ("detect", detection),
    ("dns_answer", dns_answer),
    ("dns_query", dns_query),
    ("http", http_request),
    ("java_store", java_store),
    ("message", channel_message),
    ("names", |bytes| text(bytes, names)),
    ("netlink", netns::fuzz::netlink),
    ("pem", pem),
    ("policy", |bytes| text(bytes, policy)),
    ("proc", proc_tables),
    ("provider", |bytes| text(bytes, provider)),
    ("scrub", scrub),
    ("vault", vault),
];

fn text(bytes: &[u8], parse: fn(&str)) {
    if let Ok(text) = str::from_utf8(bytes) {
        parse(text);
    }
}

fn audit_trail(bytes: &[u8]) {
    if let Some(record) = audit::read::parse(bytes) {
        let written = serde_json::to_vec(&record).expect("a record that was read");
        // Times are written to the millisecond, whoever wrote the first one more exactly.
        let again = audit::read::parse(&written).expect("a record that was written");
        assert_eq!(serde_json::to_vec(&again).expect("a record that was read"), written);
    }
}

fn config(text: &str) {
    let mut config = Config::load(&|_| None, Some("/nonexistent".into())).expect("a home without a file");
    if let Err(error) = config.merge(&File { path: Path::new("config.toml"), text }) {
        let _ = error.to_string();
    }
}

/// The first bytes of a connection, in one piece: every byte read is kept for the replay.
fn detection(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut client = bytes;
    if let Ok(detection) = runtime.block_on(detect(&mut client)) {
        assert_eq!(detection.seen, bytes[..bytes.len() - client.len()]);
    }
}

/// What a resolver answers: rewritten or refused, and what is rewritten parses and is rewritten into itself.
fn dns_answer(bytes: &[u8]) {
    for v6 in [false, true] {
        if let Ok(rewritten) = rewrite_answer(bytes, 7, v6) {
            assert!(rewrite_answer(&rewritten.bytes, 7, v6).is_ok());
        }
    }
}

/// What the child asks, and the same bytes as the answer to it.
fn dns_query(bytes: &[u8]) {
    if let Ok(query) = Query::parse(bytes) {
        let _ = (query.host(), query.connectable(), query.local_answer(bytes.len() % 2 == 0));
        let _ = answers(bytes, &query.outgoing());
        assert!(query.fit(query.refuse(hickory_proto::op::ResponseCode::ServFail)).len() <= usize::from(u16::MAX));
    }
}

/// A method, a target and header lines: what names another host than the connection's is never agreed with.
fn http_request(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut next = || str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let (method, uri) = (next(), next());
    let Ok(mut request) = Request::builder().method(method).uri(uri).body(()) else { return };
    for line in lines {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) = (header::HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(&line[at + 1..])) {
            request.headers_mut().append(name, value);
        }
    }
    let _ = (explicit::absolute(request.uri()).is_ok(), explicit::target(uri, None));
    let target = Target { host: Host::from_str("api.acme.test").expect("a name"), port: 443 };
    let (parts, ()) = request.into_parts();
    if proxied::authority::agree(&parts, &target).is_ok() {
        let host = parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
        let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
        for said in [host, authority].into_iter().flatten() {
            assert!(said.to_ascii_lowercase().starts_with(b"api.acme.test"), "{:?}", String::from_utf8_lossy(said));
        }
    }
    let mut headers = parts.headers;
    let upgrade = proxied::hop::upgrades(&headers);
    proxied::hop::strip(&mut headers, upgrade);
    assert!(!headers.contains_key(header::TRANSFER_ENCODING) && !headers.contains_key("keep-alive"));
}

fn java_store(bytes: &[u8]) {
    if let Ok(extended) = jks::extend(bytes.to_vec(), b"one certificate") {
        // The number of entries is the file's own word.
        assert!(matches!(jks::extend(extended, b"and another"), Ok(_) | Err(certificate::Error::TooLarge)));
    }
    let _ = certificate::validity(bytes);
}

/// Both directions of the channel between supervisor and init; the child has no end of it, but holds the memory of one that has.
fn channel_message(bytes: &[u8]) {
    let _ = serde_json::from_slice::<message::Order>(bytes);
    let _ = serde_json::from_slice::<message::Report>(bytes);
}

/// What users and files write: what is accepted is accepted again as it prints.
fn names(text: &str) {
    if let Ok(host) = text.parse::<Host>() {
        assert_eq!(host.to_string().parse::<Host>().as_ref(), Ok(&host));
    }
    if let Ok(url) = text.parse::<ApiUrl>() {
        let printed = url.to_string();
        assert_eq!(printed.parse::<ApiUrl>().map(|again| again.to_string()).as_deref(), Ok(printed.as_str()));
    }
    let _ = PathPrefix::new("/api").map(|prefix| prefix.matches(text));
    let _ = (text.parse::<ProviderName>().is_ok(), text.parse::<ConnectionName>().is_ok());
}

fn pem(bytes: &[u8]) {
    let mut store = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bytes).flatten() {
        let _ = store.add(certificate);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        assert!(trust::system::certificates(text).all(|certificate| text.contains(certificate)));
    }
}

fn policy(text: &str) {
    if let Ok(rule) = text.parse::<Rule>() {
        assert!(rule.to_string().parse::<Rule>().is_ok());
    }
    if let Err(error) = Policy::parse(text) {
        let _ = error.to_string();
    }
}

/// Tables in which other processes choose names and paths.
fn proc_tables(bytes: &[u8]) {
    let _ = mask::mountinfo::Mounts::parse(bytes).iter().count();
    assert!(mask::sockets::parse(bytes).iter().all(|path| !path.as_os_str().is_empty()));
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = (process_tree::parent(text), caller::endpoint(text));
        let here = ([127, 0, 0, 1], 80).into();
        let _ = text.lines().any(|line| caller::matching(line, here, here).is_some());
        assert!(!resolv_conf::parse(text).servers.is_empty());
    }
}

/// A provider definition of a stranger's: valid or an error.
fn provider(text: &str) {
    if let Err(error) = Provider::parse(text, Source::Bundled, Some("https://acme.test")) {
        let _ = error.to_string();
    }
}

/// A body of two chunks under the coding that the first byte names: no plain byte of the value comes out, and nothing is lost.
fn scrub(bytes: &[u8]) {
    const VALUE: &str = "sk-0123456789abcdef";
    let Some(([coding, cut], body)) = bytes.split_first_chunk() else { return };
    let mut headers = HeaderMap::new();
    let codings = ["identity", "gzip", "deflate", "br", "zstd"];
    let coding = codings[usize::from(*coding) % codings.len()];
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    let (first, second) = body.split_at(usize::from(*cut).min(body.len()));
    let chunks = Chunks(vec![Bytes::copy_from_slice(second), Bytes::copy_from_slice(first)]);
    let needles = Needles::new([VALUE]).expect("a value long enough");
    let mut scrubbed = proxied::scrub::Scrubbed::new(chunks, &headers, needles, Default::default());
    let mut seen = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut scrubbed).poll_frame(&mut context) {
        seen.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    if coding == "identity" {
        assert_eq!(seen.len(), body.len());
        assert!(!seen.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()));
    }
}

struct Chunks(Vec<Bytes>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop().map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// A sealed file, a record inside one, and the file of the key.
fn vault(bytes: &[u8]) {
    let (provider, connection) = ("acme".parse().expect("a name"), ConnectionName::default());
    if let Err(error) = Record::from_json(bytes, &provider, &connection, Path::new("acme/default.age")) {
        let _ = error.to_string();
    }
    let _ = key::parse(bytes, "identity.txt").is_ok();
    // Of a throw-away key.
    let identity = age::x25519::Identity::from_str("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX");
    if let Ok(identity) = identity {
        let _ = seal::open(&identity, bytes);
    }
}
