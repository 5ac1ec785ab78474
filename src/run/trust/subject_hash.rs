//! The name under which OpenSSL finds a root in a directory (X509_NAME_hash_ex(3)).

use aws_lc_rs::digest;

use crate::certificate::der::{OBJECT_IDENTIFIER, SEQUENCE, SET, UTF8_STRING, der};

/// id-at-commonName, 2.5.4.3 (RFC 5280 appendix A.1).
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// `openssl x509 -subject_hash` of a certificate whose subject is this common name alone: the first four bytes, little-endian, of the
/// SHA-1 of the canonical name. Canonical is a UTF8String in lower case (ASCII only), with space trimmed and runs of it made one, and
/// no SEQUENCE around the whole.
pub fn subject_hash(common_name: &str) -> u32 {
    let canonical = common_name.to_ascii_lowercase().split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let attribute = [der(OBJECT_IDENTIFIER, &COMMON_NAME), der(UTF8_STRING, canonical.as_bytes())].concat();
    let name = der(SET, &der(SEQUENCE, &attribute));
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &name);
    hash.as_ref().iter().take(4).rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    #[test]
    fn agrees_with_openssl() {
        let long = "n".repeat(64);
        let key = KeyPair::generate().unwrap();
        for name in ["authsome run 3f2a", "  Two   Spaces ", "ÄÖ É", long.as_str()] {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            let pem = params.self_signed(&key).unwrap().pem();
            let mut openssl = Command::new("openssl")
                .args(["x509", "-noout", "-subject_hash"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            openssl.stdin.take().unwrap().write_all(pem.as_bytes()).unwrap();
            let output = openssl.wait_with_output().unwrap();
            assert_eq!(format!("{:08x}", subject_hash(name)), String::from_utf8(output.stdout).unwrap().trim(), "{name:?}");
        }
    }
}
