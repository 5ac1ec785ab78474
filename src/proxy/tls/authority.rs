//! The certificate authority. That of a transparent run has its key in this process's memory and nowhere else; the environment mode's is stored.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use zeroize::{Zeroize, Zeroizing};

use super::leaf::Leaves;

/// A child whose clock is behind ours by less than this still accepts the certificates.
const BACKDATE: Duration = Duration::from_secs(48 * 3600);

/// How long after its start a run can open connections. Agents run for days, rarely weeks; the key dies with the run, so a longer life risks nothing,
/// but a certificate found lying about should not look like something to trust.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Ten years, as private roots have: users put it into trust stores by hand, so an end would come as a surprise, and the key lies beside the vault
/// that it could open the way to. The 825 days that some systems ask for hold for servers' certificates, and our leaves have 30.
const PERSISTENT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Octets of a random serial: above the 64 bits CAs must use, positive and within the 20 of RFC 5280 §4.1.2.2.
const SERIAL: usize = 16;

/// Signs the leaves that the child's TLS is opened with.
pub struct Authority {
    key: KeyPair,
    params: CertificateParams,
    certificate: CertificateDer<'static>,
    pem: String,
    common_name: String,
    pub(super) leaves: Leaves,
}

impl Authority {
    /// A new key and a self-signed certificate, ECDSA P-256: fast, and accepted by every TLS stack.
    pub fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let serial = serial()?;
        Self::self_signed(key, format!("authsome run CA {}", id(&serial)), LIFETIME)
    }

    /// A new private key for [`Self::persistent`], PKCS #8 in PEM.
    pub fn new_key() -> Result<Zeroizing<String>, rcgen::Error> {
        let mut key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = Zeroizing::new(key.serialize_pem());
        key.zeroize();
        Ok(pem)
    }

    /// The authority of a stored key, with a new certificate of it.
    pub fn persistent(key: &str) -> Result<Self, rcgen::Error> {
        let key = KeyPair::from_pem(key)?;
        let common_name = persistent_name(&key);
        Self::self_signed(key, common_name, PERSISTENT_LIFETIME)
    }

    /// The authority of a stored key and the certificate that [`Self::persistent`] made of it. `None`: it is not of this key.
    pub fn stored(key: &str, pem: &str) -> Result<Option<Self>, rcgen::Error> {
        let key = KeyPair::from_pem(key)?;
        let Ok(certificate) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return Ok(None) };
        let (common_name, info) = (persistent_name(&key), key.subject_public_key_info());
        let holds = |part: &[u8]| certificate.as_ref().windows(part.len()).any(|window| window == part);
        if !holds(&info) || !holds(common_name.as_bytes()) {
            return Ok(None);
        }
        let params = params(&common_name, PERSISTENT_LIFETIME)?;
        Ok(Some(Self { pem: pem.to_owned(), common_name, certificate, leaves: Leaves::new()?, params, key }))
    }

    fn self_signed(key: KeyPair, common_name: String, lifetime: Duration) -> Result<Self, rcgen::Error> {
        let params = params(&common_name, lifetime)?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { pem: certificate.pem(), common_name, certificate: certificate.into(), leaves: Leaves::new()?, params, key })
    }

    /// The certificate to trust, as one PEM block.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The one attribute of its subject, a UTF8String.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn params(common_name: &str, lifetime: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = dated();
    params.not_after = (SystemTime::now() + lifetime).into();
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

/// Told from the key, so that a certificate made again of it has the same subject.
fn persistent_name(key: &KeyPair) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
    format!("authsome CA {}", id(digest.as_ref()))
}

/// The first four octets in hexadecimal.
fn id(bytes: &[u8]) -> String {
    bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Parameters valid from 48 h ago until the end of the longest run, with no name.
pub(super) fn dated() -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + LIFETIME).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

/// Random, positive, and without a leading zero octet, which DER would drop.
pub(super) fn serial() -> Result<[u8; SERIAL], rcgen::Error> {
    let mut serial = [0; SERIAL];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}
