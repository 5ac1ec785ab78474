//! PKCS#12 key stores (RFC 7292) of certificates to trust: those without a password are read, which is what OpenJDK ships since version 18,
//! and one for a single certificate is made.
//!
//! By hand: the crates for it bring a second cryptographic library, and releases of it that are not final, for what are a few elements here.

use aws_lc_rs::{digest, hmac, rand};

use super::{
    Error,
    der::{BMP_STRING, CONTEXT_0, INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, SET, der, sequence},
};

// Contents of object identifiers.
/// pkcs7-data, 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// bag type certBag, 1.2.840.113549.1.12.10.1.3
const CERT_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03];
/// x509Certificate, 1.2.840.113549.1.9.22.1
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
/// Java's attribute of what it trusts, ORACLE_TrustedKeyUsage, 2.16.840.1.113894.746875.1.1
const TRUSTED: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 0x01, 0x01];

/// bag attribute friendlyName, 1.2.840.113549.1.9.20
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x14];
/// anyExtendedKeyUsage, 2.5.29.37.0: trusted for every purpose
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
/// id-sha256, 2.16.840.1.101.3.4.2.1
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// PFX version (RFC 7292 §4).
const VERSION: u8 = 3;
/// Octets of the salt: as long as the hash, as RFC 7292 appendix B.2 wants at least.
const SALT: usize = 32;
/// Rounds of the key derivation; what OpenSSL and Java take, or more.
const ITERATIONS: u16 = 10_000;
/// Octets of a block of SHA-256 (`v` of RFC 7292 appendix B.2).
const BLOCK: usize = 64;
/// The purpose of a derived key: integrity (RFC 7292 appendix B.3).
const FOR_MAC: u8 = 3;

/// A store that trusts this certificate (DER). The password keeps it from being changed unseen; there is no secret in it to encrypt.
pub fn store(friendly_name: &str, certificate: &[u8], password: &str) -> Result<Vec<u8>, Error> {
    let mut salt = [0; SALT];
    rand::fill(&mut salt).map_err(|_| Error::Random)?;
    let name: Vec<u8> = friendly_name.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let attributes = [attribute(FRIENDLY_NAME, &der(BMP_STRING, &name)), attribute(TRUSTED, &der(OBJECT_IDENTIFIER, ANY_USAGE))];
    let attributes = der(SET, &attributes.concat());
    let value = sequence(&[&der(OBJECT_IDENTIFIER, X509_CERTIFICATE), &der(CONTEXT_0, &der(OCTET_STRING, certificate))]);
    let bag = sequence(&[&der(OBJECT_IDENTIFIER, CERT_BAG), &der(CONTEXT_0, &value), &attributes]);
    let safes = sequence(&[&content_info(&sequence(&[&bag]))]);
    let key = mac_key(password, &salt);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &safes);
    let algorithm = sequence(&[&der(OBJECT_IDENTIFIER, SHA256), &der(NULL, &[])]);
    let digest_info = sequence(&[&algorithm, &der(OCTET_STRING, tag.as_ref())]);
    let mac = sequence(&[&digest_info, &der(OCTET_STRING, &salt), &der(INTEGER, &ITERATIONS.to_be_bytes())]);
    Ok(sequence(&[&der(INTEGER, &[VERSION]), &content_info(&safes), &mac]))
}

fn attribute(kind: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[&der(OBJECT_IDENTIFIER, kind), &der(SET, value)])
}

fn content_info(contents: &[u8]) -> Vec<u8> {
    sequence(&[&der(OBJECT_IDENTIFIER, DATA), &der(CONTEXT_0, &der(OCTET_STRING, contents))])
}

/// RFC 7292 appendix B.2. The key is as long as the hash, so that the first block is all of it. The password is a BMPString with two octets
/// of zero at its end (appendix B.1).
fn mac_key(password: &str, salt: &[u8]) -> zeroize::Zeroizing<Vec<u8>> {
    let password: zeroize::Zeroizing<Vec<u8>> =
        zeroize::Zeroizing::new(password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect());
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&[FOR_MAC; BLOCK]);
    for part in [salt, &password] {
        let length = part.len().next_multiple_of(BLOCK);
        part.iter().cycle().take(length).for_each(|&octet| hash.update(&[octet]));
    }
    let mut key = hash.finish();
    for _ in 1..ITERATIONS {
        key = digest::digest(&digest::SHA256, key.as_ref());
    }
    zeroize::Zeroizing::new(key.as_ref().to_vec())
}

/// The certificates (DER) the store trusts.
pub fn trusted_certificates(store: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let mut pfx = Reader(store).element(SEQUENCE)?;
    let _version = pfx.any()?;
    let mut safes = pfx.content_info()?.element(SEQUENCE)?;
    let mut found = Vec::new();
    while !safes.is_empty() {
        let mut bags = safes.content_info()?.element(SEQUENCE)?;
        while !bags.is_empty() {
            found.extend(bags.trusted_certificate()?);
        }
    }
    Ok(found)
}

impl<'a> Reader<'a> {
    /// What is inside a ContentInfo of type data (RFC 7292 §4).
    fn content_info(&mut self) -> Result<Self, Error> {
        let mut info = self.element(SEQUENCE)?;
        if info.element(OBJECT_IDENTIFIER)?.0 != DATA {
            return Err(Error::Encrypted);
        }
        info.element(CONTEXT_0)?.element(OCTET_STRING)
    }

    /// The certificate of the next SafeBag, if it is one and trusted.
    fn trusted_certificate(&mut self) -> Result<Option<&'a [u8]>, Error> {
        let mut bag = self.element(SEQUENCE)?;
        let kind = bag.element(OBJECT_IDENTIFIER)?.0;
        let mut value = bag.element(CONTEXT_0)?;
        let trusted = !bag.is_empty() && bag.element(SET)?.0.windows(TRUSTED.len()).any(|window| window == TRUSTED);
        if kind != CERT_BAG || !trusted {
            return Ok(None);
        }
        let mut certificate = value.element(SEQUENCE)?;
        if certificate.element(OBJECT_IDENTIFIER)?.0 != X509_CERTIFICATE {
            return Ok(None);
        }
        Ok(Some(certificate.element(CONTEXT_0)?.element(OCTET_STRING)?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(kind: &[u8], contents: &[u8]) -> Vec<u8> {
        sequence(&[&der(OBJECT_IDENTIFIER, kind), &der(CONTEXT_0, &der(OCTET_STRING, contents))])
    }

    fn bag(kind: &[u8], certificate: &[u8], attributes: &[u8]) -> Vec<u8> {
        sequence(&[&der(OBJECT_IDENTIFIER, kind), &der(CONTEXT_0, &info(X509_CERTIFICATE, certificate)), attributes])
    }

    fn store(safe: &[u8]) -> Vec<u8> {
        sequence(&[&[0x02, 0x01, 0x03], &info(DATA, &sequence(&[safe]))])
    }

    #[test]
    fn only_trusted_certificates_are_taken() {
        const KEY_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x01];
        let trusted = der(SET, &sequence(&[&der(OBJECT_IDENTIFIER, TRUSTED), &der(SET, &[])]));
        let other = der(SET, &[]);
        let bags = [
            bag(CERT_BAG, b"root", &trusted),
            bag(CERT_BAG, b"chain", &other),
            bag(CERT_BAG, b"bare", &[]),
            bag(KEY_BAG, b"key", &trusted),
        ];
        let store = store(&info(DATA, &sequence(&bags.each_ref().map(Vec::as_slice))));
        assert_eq!(trusted_certificates(&store).unwrap(), [b"root"]);
    }

    /// Sixteen bits of length are not enough for all of a store, so every length form occurs.
    #[test]
    fn what_is_made_is_read() {
        for length in [1, 0x7f, 0x80, 0x400] {
            let certificate = vec![7; length];
            let store = super::store("name", &certificate, "s3cret").unwrap();
            assert_eq!(trusted_certificates(&store).unwrap(), [certificate.as_slice()]);
        }
    }

    #[test]
    fn encrypted_is_named() {
        const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];
        assert!(matches!(trusted_certificates(&store(&info(ENCRYPTED_DATA, b""))), Err(Error::Encrypted)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = trusted_certificates(&bytes);
        }

        #[test]
        fn any_damage_is_read(at in 0usize..60, byte: u8) {
            // SEQUENCE { INTEGER 3, ContentInfo { data, [0] { OCTET STRING { SEQUENCE {} } } } }
            let mut store = [&[0x30, 0x16, 0x02, 0x01, 0x03, 0x30, 0x11, 0x06, 0x09][..], DATA, &[0xa0, 0x04, 0x04, 0x02, 0x30, 0x00]].concat();
            prop_assert_eq!(trusted_certificates(&store).map(|found| found.len()).ok(), Some(0));
            if let Some(there) = store.get_mut(at) {
                *there = byte;
            }
            let _ = trusted_certificates(&store);
        }
    }
}
