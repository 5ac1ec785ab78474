//! What a connection speaks, told from its first bytes. Bounded and timed; every byte read is kept for replay.

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::route::policy::Protocol;

mod hello;
mod request;

pub use hello::Hello;

/// What the client's first bytes are.
pub enum Detected {
    /// A whole ClientHello that names a host.
    Tls(Box<Hello>),
    /// TLS that names no host, or a hello that our parser refuses (old versions, odd extensions): the server may know better.
    TlsNoName,
    /// An HTTP/1 request line or the HTTP/2 preface, in the clear.
    Http,
    /// Anything else.
    Opaque,
}

/// A verdict and the bytes it was reached with, in order, to be replayed.
pub struct Detection {
    pub detected: Detected,
    pub seen: Vec<u8>,
}

/// What bytes that were too slow to tell may still turn out to be, so that no rule is evaded by hesitation.
pub fn perhaps(seen: &[u8]) -> Option<Protocol> {
    match hello::starts(seen) {
        _ if seen.is_empty() => None,
        None => Some(Protocol::Https),
        Some(false) if request::detect(seen).is_none() => Some(Protocol::Http),
        Some(_) => None,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error("read from the client: {0}")]
    Read(#[from] io::Error),
    #[error("the client hello was not complete within {} s", TLS_LIMIT.as_secs())]
    TooSlow,
    #[error("the client hello is longer than {MAX_HELLO} bytes")]
    TooLong,
}

/// Octets of a ClientHello with its record headers. rustls joins at most 65535 (its `MAX_HANDSHAKE_SIZE`); a post-quantum hello has about 1700.
pub const MAX_HELLO: usize = 0xffff;

/// From a hello's first byte to its last; what OpenSSL- and Go-based servers commonly allow for a handshake.
const TLS_LIMIT: Duration = Duration::from_secs(10);

/// From a request line's first byte to its shape. Only the audit's wording hangs on it, so a client that sends one letter and waits is not kept waiting.
const REQUEST_LIMIT: Duration = Duration::from_millis(200);

/// Octets of one read: half of what rustls accepts in one go (its `READ_SIZE`), so that it takes all and no byte is left between it and us.
const READ_SIZE: usize = 2048;

/// Reads from `client`, which has something to read, until what it speaks is known.
pub async fn detect(client: &mut (impl AsyncRead + Unpin)) -> Result<Detection, DetectError> {
    let started = tokio::time::Instant::now();
    let mut detector = Detector::new();
    let mut chunk = [0; READ_SIZE];
    loop {
        let Ok(read) = tokio::time::timeout_at(started + detector.limit(), client.read(&mut chunk)).await else {
            return detector.expired();
        };
        match read? {
            0 => return Ok(detector.ended()),
            n => {
                if let Some(detected) = detector.feed(&chunk[..n])? {
                    return Ok(Detection { detected, seen: detector.seen });
                }
            }
        }
    }
}

/// The verdict as a function of the bytes alone.
struct Detector {
    seen: Vec<u8>,
    state: State,
}

enum State {
    Start,
    Tls(Box<hello::Parser>),
    Request,
}

impl Detector {
    fn new() -> Self {
        Self { seen: Vec::new(), state: State::Start }
    }

    fn limit(&self) -> Duration {
        match self.state {
            State::Start | State::Tls(_) => TLS_LIMIT,
            State::Request => REQUEST_LIMIT,
        }
    }

    /// Takes the next bytes, at least one and at most [`READ_SIZE`]. `None`: more are needed.
    fn feed(&mut self, chunk: &[u8]) -> Result<Option<Detected>, DetectError> {
        self.seen.extend_from_slice(chunk);
        if let State::Start = self.state {
            match hello::starts(&self.seen) {
                None => return Ok(None),
                Some(false) => self.state = State::Request,
                Some(true) => {
                    let mut parser = Box::<hello::Parser>::default();
                    let progress = parser.feed(&self.seen);
                    self.state = State::Tls(parser);
                    return progress;
                }
            }
        }
        match &mut self.state {
            State::Tls(parser) => parser.feed(chunk),
            State::Start | State::Request => Ok(request::detect(&self.seen)),
        }
    }

    /// The client will send no more, but may still listen.
    fn ended(self) -> Detection {
        let detected = match self.state {
            State::Tls(_) => Detected::TlsNoName,
            State::Start | State::Request => Detected::Opaque,
        };
        Detection { detected, seen: self.seen }
    }

    /// A slow hello is refused, since a rule on its name could not be applied; slow plain text is relayed.
    fn expired(self) -> Result<Detection, DetectError> {
        match self.state {
            State::Tls(_) => Err(DetectError::TooSlow),
            State::Start | State::Request => Ok(Detection { detected: Detected::Opaque, seen: self.seen }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A real ClientHello, as rustls writes it.
    pub(super) fn client_hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn run(bytes: &[u8]) -> Result<Detection, DetectError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { detect(&mut &bytes[..]).await })
    }

    fn kind(bytes: &[u8]) -> &'static str {
        match run(bytes).map(|d| d.detected) {
            Ok(Detected::Tls(_)) => "tls",
            Ok(Detected::TlsNoName) => "tls without a name",
            Ok(Detected::Http) => "http",
            Ok(Detected::Opaque) => "opaque",
            Err(_) => "error",
        }
    }

    #[test]
    fn kinds() {
        let hello = client_hello("api.acme.test", &[]);
        for (bytes, want) in [
            (&hello[..], "tls"),
            (&client_hello("203.0.113.7", &[]), "tls without a name"),
            (&hello[..hello.len() - 1], "tls without a name"),
            (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff", "tls without a name"),
            (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", "error"),
            (b"GET / HTTP/1.1\r\nHost: acme.test\r\n\r\n", "http"),
            (b"PROPFIND * HTTP/1.1\r\n", "http"),
            (b"CONNECT acme.test:443 HTTP/1.1\r\n", "http"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "opaque"),
            (b"EHLO acme.test\r\n", "opaque"),
            (b"PING\r\n", "opaque"),
            (b"\x16\x02", "opaque"),
            (b"\0", "opaque"),
            (b"GE", "opaque"),
            (b"", "opaque"),
        ] {
            assert_eq!(kind(bytes), want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_hello_is_read_byte_by_byte() {
        let hello = client_hello("API.Acme.test", &[b"h2", b"http/1.1"]);
        let mut detector = Detector::new();
        for (i, byte) in hello.iter().enumerate() {
            match detector.feed(&[*byte]).unwrap() {
                Some(Detected::Tls(hello)) => {
                    assert_eq!(hello.server_name, "api.acme.test".parse().unwrap());
                    assert!(hello.offers_h2());
                    assert_eq!(i, detector.seen.len() - 1);
                    return;
                }
                Some(_) => panic!("mistaken at byte {i}"),
                None => assert!(i < hello.len() - 1),
            }
        }
        panic!("never detected");
    }

    #[test]
    fn a_slow_hello_is_refused_and_slow_plain_text_relayed() {
        let after = |bytes: &[u8]| {
            let mut detector = Detector::new();
            assert!(detector.feed(bytes).unwrap().is_none());
            detector.expired().map(|detection| (matches!(detection.detected, Detected::Opaque), detection.seen))
        };
        assert!(matches!(after(&client_hello("api.acme.test", &[])[..100]), Err(DetectError::TooSlow)));
        assert_eq!(after(b"GE").unwrap(), (true, b"GE".to_vec()));
        assert_eq!(after(b"\x16").unwrap(), (true, b"\x16".to_vec()));
    }

    #[test]
    fn a_hello_of_its_limit_is_read_and_a_longer_one_refused() {
        for (length, want) in [(60_000, "tls"), (70_000, "error")] {
            assert_eq!(kind(&padded_hello(length)), want, "{length}");
        }
    }

    /// A hello whose padding extension (RFC 7685) fills it up to about `length`, split over records of 16 KiB.
    fn padded_hello(length: usize) -> Vec<u8> {
        let plain = client_hello("api.acme.test", &[]);
        let (mut message, extensions) = (plain[5..].to_vec(), {
            let session = 4 + 2 + 32;
            let suites = session + 1 + usize::from(plain[5 + session]);
            let compression = suites + 2 + usize::from(u16::from_be_bytes([plain[5 + suites], plain[5 + suites + 1]]));
            compression + 1 + usize::from(plain[5 + compression])
        });
        let padding = (length - message.len()).min(0xffff - 1000);
        message.extend(21u16.to_be_bytes());
        message.extend((padding as u16).to_be_bytes());
        message.resize(message.len() + padding, 0);
        let total = message.len() - 4;
        message[1..4].copy_from_slice(&(total as u32).to_be_bytes()[1..]);
        let inner = message.len() - extensions - 2;
        message[extensions..extensions + 2].copy_from_slice(&(inner as u16).to_be_bytes());
        if length > MAX_HELLO {
            message[1..4].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            message.resize(length + 4, 0);
        }
        let record = |part: &[u8]| [&[0x16, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
        message.chunks(16_384).flat_map(record).collect()
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(mut bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0..4usize, cuts in prop::collection::vec(1..40usize, 0..40)) {
            let hello = client_hello("api.acme.test", &[b"h2"]);
            let prefix: &[u8] = [&hello[..], &hello[..100], b"GET ", b""][start];
            bytes.splice(0..0, prefix.iter().copied());
            let mut detector = Detector::new();
            let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (chunk, tail) = rest.split_at(cuts.next().unwrap_or(READ_SIZE).min(rest.len()));
                rest = tail;
                if detector.feed(chunk).unwrap().is_some() { break }
            }
            prop_assert_eq!([&detector.seen, rest].concat(), bytes);
        }

        #[test]
        fn never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = run(&bytes);
            let _ = run(&[&[0x16, 3, 1][..], &bytes].concat());
        }
    }
}
