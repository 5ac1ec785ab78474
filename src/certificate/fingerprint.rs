//! What people compare to know that two certificates are the same.

use aws_lc_rs::digest::{self, Algorithm};

/// The SHA-256 of a certificate (DER), as every tool shows it: `AB:CD:…`.
pub fn sha256(certificate: &[u8]) -> String {
    fingerprint(&digest::SHA256, certificate)
}

/// The SHA-1, which Windows still lists certificates by; not one to rely on.
pub fn sha1(certificate: &[u8]) -> String {
    fingerprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate)
}

fn fingerprint(algorithm: &'static Algorithm, certificate: &[u8]) -> String {
    let octets: Vec<_> = digest::digest(algorithm, certificate).as_ref().iter().map(|octet| format!("{octet:02X}")).collect();
    octets.join(":")
}
