//! A throw-away certificate authority and one certificate per name, some of them bad on purpose.

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{collections::HashMap, sync::Arc};

/// Names with a good certificate.
const GOOD: [&str; 7] =
    ["api.openai.com", "api.acme.test", "h1.acme.test", "other.test", "pinned.test", "inner.acme.test", "only.proxy.test"];
/// Served by the programs that a test starts, so its certificate can be had as files.
pub const PROGRAMS: &str = "programs.acme.test";
pub const EXPIRED: &str = "expired.acme.test";
pub const WRONG_HOST: &str = "wronghost.acme.test";
pub const UNKNOWN_ISSUER: &str = "unknown.acme.test";

pub struct Pki {
    /// PEM of the root that the host trusts for these names.
    pub root: String,
    /// PEM of the certificate of [`PROGRAMS`] and of its key.
    pub programs: (String, String),
    certificates: Arc<Certificates>,
}

#[derive(Debug)]
struct Certificates(HashMap<String, Arc<CertifiedKey>>);

type Root = CertifiedIssuer<'static, KeyPair>;

impl Pki {
    pub fn new() -> Self {
        let (root, stranger) = (root("authsome test root"), root("authsome test stranger"));
        let mut all: HashMap<_, _> = GOOD.iter().map(|name| ((*name).to_owned(), leaf(name, &root, |_| ()))).collect();
        all.insert(EXPIRED.into(), leaf(EXPIRED, &root, |params| params.not_after = date_time_ymd(2021, 1, 1)));
        all.insert(WRONG_HOST.into(), leaf("somebody-else.test", &root, |_| ()));
        all.insert(UNKNOWN_ISSUER.into(), leaf(UNKNOWN_ISSUER, &stranger, |_| ()));
        let (certificate, key) = certify(PROGRAMS, &root, |_| ());
        let programs = (certificate.pem(), key.serialize_pem());
        Self { root: root.pem(), programs, certificates: Arc::new(Certificates(all)) }
    }

    pub fn server(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.certificates.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The certificate that the origin shows for a name.
    pub fn der(&self, name: &str) -> CertificateDer<'static> {
        self.certificates.0[name].cert[0].clone()
    }
}

impl ResolvesServerCert for Certificates {
    /// By name and without looking into the certificate, so that a wrong one can be shown; without a name, the one of `other.test`.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get(hello.server_name().unwrap_or("other.test")).cloned()
    }
}

fn root(name: &str) -> Root {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, name);
    Root::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(name: &str, root: &Root, change: impl FnOnce(&mut CertificateParams)) -> Arc<CertifiedKey> {
    let (certificate, key) = certify(name, root, change);
    let signer = any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
    Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer))
}

fn certify(name: &str, root: &Root, change: impl FnOnce(&mut CertificateParams)) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, root).unwrap(), key)
}
