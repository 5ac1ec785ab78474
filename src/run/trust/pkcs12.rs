//! Roots of a PKCS#12 key store without a password (RFC 7292), which is what OpenJDK ships since version 18.

use super::java::Error;

// DER tags (X.690 §8).
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0] EXPLICIT`, constructed.
const CONTEXT_0: u8 = 0xa0;

// Contents of object identifiers.
/// pkcs7-data, 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// bag type certBag, 1.2.840.113549.1.12.10.1.3
const CERT_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03];
/// x509Certificate, 1.2.840.113549.1.9.22.1
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
/// Java's attribute of what it trusts, ORACLE_TrustedKeyUsage, 2.16.840.1.113894.746875.1.1
const TRUSTED: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 0x01, 0x01];

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

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element: its tag and contents.
    fn any(&mut self) -> Result<(u8, Self), Error> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>().ok_or(Error::Format)?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // The long form (X.690 §8.1.3.5); an indefinite length is not DER.
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(Error::Format)?;
            if bytes.is_empty() || bytes.len() > size_of::<u32>() {
                return Err(Error::Format);
            }
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        };
        let (contents, rest) = rest.split_at_checked(length).ok_or(Error::Format)?;
        self.0 = rest;
        Ok((tag, Self(contents)))
    }

    fn element(&mut self, expected: u8) -> Result<Self, Error> {
        let (tag, contents) = self.any()?;
        if tag == expected { Ok(contents) } else { Err(Error::Format) }
    }

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
    use super::{super::subject_hash::der, *};
    use proptest::prelude::*;

    fn sequence(parts: &[&[u8]]) -> Vec<u8> {
        der(SEQUENCE, &parts.concat())
    }

    fn content_info(kind: &[u8], contents: &[u8]) -> Vec<u8> {
        sequence(&[&der(OBJECT_IDENTIFIER, kind), &der(CONTEXT_0, &der(OCTET_STRING, contents))])
    }

    fn bag(kind: &[u8], certificate: &[u8], attributes: &[u8]) -> Vec<u8> {
        sequence(&[&der(OBJECT_IDENTIFIER, kind), &der(CONTEXT_0, &content_info(X509_CERTIFICATE, certificate)), attributes])
    }

    fn store(safe: &[u8]) -> Vec<u8> {
        sequence(&[&[0x02, 0x01, 0x03], &content_info(DATA, &sequence(&[safe]))])
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
        let store = store(&content_info(DATA, &sequence(&bags.each_ref().map(Vec::as_slice))));
        assert_eq!(trusted_certificates(&store).unwrap(), [b"root"]);
    }

    #[test]
    fn encrypted_is_named() {
        const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];
        assert!(matches!(trusted_certificates(&store(&content_info(ENCRYPTED_DATA, b""))), Err(Error::Encrypted)));
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
