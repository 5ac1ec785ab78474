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

use super::{
    ALPN_H2, ALPN_HTTP1,
    authority::{Authority, dated, serial},
};
use crate::{host::Name, upstream::Protocol};

/// Configurations kept, about 4 KiB each. A pattern route lets the child ask for any number of names; beyond this all are made anew.
const MAX_CONFIGS: usize = 1024;

/// The longest common name X.509 allows, in characters (RFC 5280 appendix A.1, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// What the child is offered by ALPN; `None` when it offered nothing.
pub type Offer = Option<Protocol>;

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
    /// By name and the one ALPN identifier offered.
    configs: Mutex<HashMap<(Name, Option<&'static [u8]>), Arc<ServerConfig>>>,
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
        let alpn = offer.map(alpn_id);
        let mut configs = self.leaves.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(&(name.clone(), alpn)) {
            return Ok(config.clone());
        }
        if configs.len() >= MAX_CONFIGS {
            configs.clear();
        }
        let leaf = self.leaf(name).map_err(|e| LeafError::Certificate(name.as_str().to_owned(), e))?;
        let config = config(leaf, &self.leaves, alpn).map_err(|e| LeafError::Config(name.as_str().to_owned(), e))?;
        configs.insert((name.clone(), alpn), config.clone());
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

fn config(leaf: rcgen::Certificate, leaves: &Leaves, alpn: Option<&'static [u8]>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaves.key.serialize_der())))?;
    let certified = CertifiedKey::new(vec![leaf.into()], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    config.ticketer = leaves.ticketer.clone();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn alpn_id(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => ALPN_HTTP1,
        Protocol::H2 => ALPN_H2,
    }
}
