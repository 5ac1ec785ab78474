//! The certificate authority of one run. Its key lives in this process's memory and nowhere else.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroize;

use super::leaf::Leaves;

/// A child whose clock is behind ours by less than this still accepts the certificates.
const BACKDATE: Duration = Duration::from_secs(48 * 3600);

/// How long after its start a run can open connections. Agents run for days, rarely weeks; the key dies with the run, so a longer life risks nothing,
/// but a certificate found lying about should not look like something to trust.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

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
        let mut params = dated();
        let serial = serial()?;
        let id: String = serial.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let common_name = format!("authsome run CA {id}");
        params.distinguished_name.push(DnType::CommonName, common_name.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
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
