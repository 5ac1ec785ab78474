//! Java's own key store, with certificates alone.
//!
//! The format is defined by its implementation, `sun.security.provider.JavaKeyStore` of OpenJDK: big-endian numbers; magic, version,
//! number of entries, the entries, and a SHA-1 over a password, a phrase and all before it. Java reads JKS also where it expects PKCS#12.
//! Written by hand: the one crate that knows it takes a second cryptographic library along.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;

use super::{Error, pkcs12};

const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const VERSION: [u8; 4] = [0, 0, 0, 2];
const COUNT_AT: std::ops::Range<usize> = 8..12;
const TRUSTED_CERTIFICATE: [u8; 4] = [0, 0, 0, 2];
/// Every `cacerts` has it; it protects nothing, and Java reads roots without it.
pub const PASSWORD: &str = "changeit";
const PHRASE: &[u8] = b"Mighty Aphrodite";

/// A store of this one trusted certificate (DER).
pub fn store(alias: &str, certificate: &[u8], password: &str) -> Result<Vec<u8>, Error> {
    let mut store = empty();
    append_entry(&mut store, alias, certificate)?;
    Ok(sealed(store, password))
}

/// A store of roots with `certificate` (DER) added. It is a JKS, whatever it was before.
pub fn extend(mut store: Vec<u8>, certificate: &[u8]) -> Result<Vec<u8>, Error> {
    if !store.starts_with(&MAGIC) {
        store = from_pkcs12(&store)?;
    }
    let body = store.len().checked_sub(digest::SHA1_OUTPUT_LEN).filter(|&length| length >= COUNT_AT.end).ok_or(Error::Format)?;
    if !store.starts_with(&[MAGIC, VERSION].concat()) {
        return Err(Error::Format);
    }
    store.truncate(body);
    append_entry(&mut store, "authsome", certificate)?;
    Ok(sealed(store, PASSWORD))
}

fn from_pkcs12(store: &[u8]) -> Result<Vec<u8>, Error> {
    let mut converted = empty();
    for (index, certificate) in pkcs12::trusted_certificates(store)?.into_iter().enumerate() {
        append_entry(&mut converted, &format!("root-{index}"), certificate)?;
    }
    Ok(sealed(converted, PASSWORD))
}

fn empty() -> Vec<u8> {
    [MAGIC, VERSION, [0; 4]].concat()
}

/// A trusted certificate entry: kind, alias, creation time in milliseconds, certificate type, certificate. One more is counted.
fn append_entry(store: &mut Vec<u8>, alias: &str, certificate: &[u8]) -> Result<(), Error> {
    let count = store.get_mut(COUNT_AT).and_then(|bytes| bytes.first_chunk_mut::<4>()).ok_or(Error::Format)?;
    *count = u32::from_be_bytes(*count).checked_add(1).ok_or(Error::TooLarge)?.to_be_bytes();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64);
    store.extend(TRUSTED_CERTIFICATE);
    append_text(store, alias)?;
    store.extend(now.to_be_bytes());
    append_text(store, "X.509")?;
    store.extend(u32::try_from(certificate.len()).map_err(|_| Error::TooLarge)?.to_be_bytes());
    store.extend(certificate);
    Ok(())
}

/// Java's modified UTF-8 with a length in front; the same as ASCII for ASCII.
fn append_text(store: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    store.extend(u16::try_from(text.len()).map_err(|_| Error::TooLarge)?.to_be_bytes());
    store.extend(text.as_bytes());
    Ok(())
}

fn sealed(mut store: Vec<u8>, password: &str) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    password.encode_utf16().for_each(|unit| hash.update(&unit.to_be_bytes()));
    hash.update(PHRASE);
    hash.update(&store);
    store.extend_from_slice(hash.finish().as_ref());
    store
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_formats_are_refused() {
        for store in [&b""[..], &MAGIC, &[MAGIC, [0, 0, 0, 1]].concat(), b"-----BEGIN CERTIFICATE-----"] {
            assert!(matches!(extend(store.to_vec(), b"der"), Err(Error::Format)), "{store:?}");
        }
    }

    proptest! {
        #[test]
        fn any_store_is_read(store: Vec<u8>) {
            let _ = extend([MAGIC.to_vec(), store.clone()].concat(), b"der");
            let _ = extend(store, b"der");
        }
    }
}
