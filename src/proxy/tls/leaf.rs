//! Leaf certificates: one name each, so that an HTTP/2 client does not use one connection for two hosts (RFC 9113 §9.1.1).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rcgen::{DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{NoServerSessionStorage, ProducesTickets},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::authority::{Authority, dated, serial};
use crate::host::Name;

/// Configurations kept, about 4 KiB each. A pattern route lets the child ask for any number of names; beyond this all are made anew.
const MAX_CONFIGS: usize = 1024;

/// The longest common name X.509 allows, in characters (RFC 5280 appendix A.1, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// The one ALPN identifier the child is answered with; `None` when it sent none.
pub type Offer = Option<&'static [u8]>;

#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    #[error("make a certificate for {0}: {1}")]
    Certificate(String, #[source] rcgen::Error),
    #[error("set up TLS for {0}: {1}")]
    Config(String, #[source] rustls::Error),
}

/// What all leaves of a run share, and the configurations made so far.
pub(super) struct Leaves {
    /// One key for all leaves: they protect the same loopback path, and making a key costs more than a signature.
    key: KeyPair,
    /// One ticketer, so that a child resumes whichever configuration it meets; rustls binds a ticket to its server name.
    ticketer: Arc<dyn ProducesTickets>,
    configs: Mutex<HashMap<(Name, Offer), Arc<ServerConfig>>>,
}

impl Leaves {
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        Ok(Self {
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            ticketer: rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|_| rcgen::Error::RingUnspecified)?,
            configs: Mutex::default(),
        })
    }
}

impl Authority {
    /// The server side of TLS for `name`. Made under the lock: a signature takes less time than two tasks making one each.
    pub fn server_config(&self, name: &Name, offer: Offer) -> Result<Arc<ServerConfig>, LeafError> {
        let mut configs = self.leaves.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(&(name.clone(), offer)) {
            return Ok(config.clone());
        }
        if configs.len() >= MAX_CONFIGS {
            configs.clear();
        }
        let leaf = self.leaf(name).map_err(|e| LeafError::Certificate(name.as_str().to_owned(), e))?;
        let config = config(leaf, &self.leaves, offer).map_err(|e| LeafError::Config(name.as_str().to_owned(), e))?;
        configs.insert((name.clone(), offer), config.clone());
        Ok(config)
    }

    fn leaf(&self, name: &Name) -> Result<rcgen::Certificate, rcgen::Error> {
        let mut params = dated();
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        if name.as_str().len() <= MAX_COMMON_NAME {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.subject_alt_names = vec![SanType::DnsName(name.as_str().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.signed_by(&self.leaves.key, &self.issuer())
    }
}

fn config(leaf: rcgen::Certificate, leaves: &Leaves, offer: Offer) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaves.key.serialize_der())))?;
    let certified = CertifiedKey::new(vec![leaf.into()], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = offer.map(<[u8]>::to_vec).into_iter().collect();
    config.ticketer = leaves.ticketer.clone();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::Host,
        proxy::tls::{ALPN_H2, ALPN_HTTP11},
    };
    use rustls::{
        ClientConfig, ClientConnection, Connection, HandshakeKind, RootCertStore, ServerConnection, pki_types::UnixTime,
        time_provider::TimeProvider,
    };
    use std::time::{Duration, SystemTime};

    fn name(text: &str) -> Name {
        match text.parse() {
            Ok(Host::Name(name)) => name,
            other => panic!("{other:?}"),
        }
    }

    fn roots(authority: &Authority) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate_der().clone()).unwrap();
        roots
    }

    fn client(authority: &Authority, versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots(authority))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|id| id.to_vec()).collect();
        config
    }

    /// A handshake in memory; the client's view of it.
    fn handshake(
        config: impl Into<Arc<ClientConfig>>,
        expects: &str,
        server: Arc<ServerConfig>,
    ) -> Result<ClientConnection, rustls::Error> {
        let mut client: Connection = ClientConnection::new(config.into(), expects.to_owned().try_into().unwrap()).unwrap().into();
        let mut server: Connection = ServerConnection::new(server).unwrap().into();
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            transfer(&mut client, &mut server)?;
            transfer(&mut server, &mut client)?;
        }
        match client {
            Connection::Client(client) => Ok(client),
            Connection::Server(_) => unreachable!(),
        }
    }

    fn transfer(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            to.read_tls(&mut bytes).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn a_client_that_trusts_only_this_authority_accepts_its_leaf() {
        let authority = Authority::new().unwrap();
        let long = format!("{}.{}.acme.test", "a".repeat(60), "b".repeat(60));
        for host in ["api.acme.test", &long] {
            for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
                let server = authority.server_config(&name(host), Some(ALPN_H2)).unwrap();
                let connection = handshake(client(&authority, &[version], &[b"http/1.1", b"h2"]), host, server).unwrap();
                assert_eq!(connection.alpn_protocol(), Some(ALPN_H2));
                assert_eq!(connection.protocol_version(), Some(version.version));
            }
        }
    }

    #[test]
    fn a_leaf_is_for_one_name_and_one_authority() {
        let authority = Authority::new().unwrap();
        let server = authority.server_config(&name("api.acme.test"), None).unwrap();
        let other = Authority::new().unwrap();
        for (trusted, expects) in
            [(&authority, "acme.test"), (&authority, "x.api.acme.test"), (&authority, "www.acme.test"), (&other, "api.acme.test")]
        {
            let refused = handshake(client(trusted, rustls::ALL_VERSIONS, &[]), expects, server.clone()).unwrap_err();
            assert!(matches!(refused, rustls::Error::InvalidCertificate(_)), "{expects}: {refused}");
        }
    }

    /// What a client's clock says.
    #[derive(Debug)]
    struct Clock(SystemTime);

    impl TimeProvider for Clock {
        fn current_time(&self) -> Option<UnixTime> {
            self.0.duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
        }
    }

    /// Set by a day either way after the certificates were made, the clock still finds them valid; by weeks, it does not.
    #[test]
    fn a_clock_that_jumps_by_a_day_changes_nothing() {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let authority = Authority::new().unwrap();
        let server = authority.server_config(&name("api.acme.test"), None).unwrap();
        let accepts = |clock| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_details(provider, Arc::new(Clock(clock))).with_safe_default_protocol_versions();
            let config = config.unwrap().with_root_certificates(roots(&authority)).with_no_client_auth();
            handshake(config, "api.acme.test", server.clone()).is_ok()
        };
        let now = SystemTime::now();
        assert_eq!([now - DAY, now, now + DAY].map(accepts), [true; 3]);
        assert_eq!([now - 3 * DAY, now + 31 * DAY].map(accepts), [false; 2]);
    }

    #[test]
    fn a_session_resumes_whatever_is_offered_by_alpn() {
        let authority = Authority::new().unwrap();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let config = Arc::new(client(&authority, &[version], &[b"h2", b"http/1.1"]));
            let kinds = [ALPN_H2, ALPN_HTTP11].map(|offer| {
                let server = authority.server_config(&name("api.acme.test"), Some(offer)).unwrap();
                handshake(config.clone(), "api.acme.test", server).unwrap().handshake_kind()
            });
            assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
        }
    }

    #[test]
    fn configurations_are_made_once_and_bounded() {
        let authority = Authority::new().unwrap();
        let first = authority.server_config(&name("api.acme.test"), None).unwrap();
        assert!(Arc::ptr_eq(&first, &authority.server_config(&name("api.acme.test"), None).unwrap()));
        assert!(!Arc::ptr_eq(&first, &authority.server_config(&name("api.acme.test"), Some(ALPN_H2)).unwrap()));
        for i in 0..MAX_CONFIGS {
            authority.server_config(&name(&format!("h{i}.acme.test")), None).unwrap();
        }
        assert!(authority.leaves.configs.lock().unwrap().len() <= MAX_CONFIGS);
    }

    #[test]
    fn authorities_differ() {
        let (a, b) = (Authority::new().unwrap(), Authority::new().unwrap());
        assert_ne!(a.certificate_pem(), b.certificate_pem());
        assert!(a.certificate_pem().starts_with("-----BEGIN CERTIFICATE-----"));
    }
}
