//! Java's key stores of roots (`cacerts`), with one more.
//!
//! The JKS format is defined by its implementation, `sun.security.provider.JavaKeyStore` of OpenJDK: big-endian numbers; magic, version,
//! number of entries, the entries, and a SHA-1 over a password, a phrase and all before it. Java reads JKS also where it expects PKCS#12.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;

use super::pkcs12;

/// Debian's and Fedora's shared stores; Java installations have links to them or their own.
const SHARED: &[&str] = &["/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts"];
const INSTALLATIONS: &str = "/usr/lib/jvm";
const IN_INSTALLATION: &[&str] = &["lib/security/cacerts", "jre/lib/security/cacerts"];

const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const VERSION: [u8; 4] = [0, 0, 0, 2];
const COUNT_AT: std::ops::Range<usize> = 8..12;
const TRUSTED_CERTIFICATE: [u8; 4] = [0, 0, 0, 2];
/// Every `cacerts` has it; it protects nothing, and Java reads roots without it.
const PASSWORD: &str = "changeit";
const PHRASE: &[u8] = b"Mighty Aphrodite";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the key store: {0}")]
    Read(#[source] io::Error),
    #[error("neither a JKS key store of version 2 nor a PKCS#12 one")]
    Format,
    #[error("the PKCS#12 key store is encrypted")]
    Encrypted,
    #[error("too large for a JKS key store")]
    TooLarge,
}

/// Each store of roots on this machine by its real path, once.
pub fn stores(java_home: Option<&Path>) -> BTreeSet<PathBuf> {
    let installed = fs::read_dir(INSTALLATIONS).into_iter().flatten().flatten().map(|entry| entry.path());
    let in_installations =
        installed.chain(java_home.map(Path::to_owned)).flat_map(|home| IN_INSTALLATION.iter().map(move |name| home.join(name)));
    let candidates = SHARED.iter().map(PathBuf::from).chain(in_installations);
    candidates.filter_map(|path| path.canonicalize().ok()).filter(|path| path.is_file() && !path.starts_with("/proc")).collect()
}

/// The store with `certificate` (DER) added as a trusted root. It is a JKS, whatever it was before.
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
    let integrity = integrity(&store);
    store.extend_from_slice(integrity.as_ref());
    Ok(store)
}

fn from_pkcs12(store: &[u8]) -> Result<Vec<u8>, Error> {
    let mut converted = [MAGIC, VERSION, [0; 4]].concat();
    for (index, certificate) in pkcs12::trusted_certificates(store)?.into_iter().enumerate() {
        append_entry(&mut converted, &format!("root-{index}"), certificate)?;
    }
    let integrity = integrity(&converted);
    converted.extend_from_slice(integrity.as_ref());
    Ok(converted)
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

fn integrity(body: &[u8]) -> digest::Digest {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(&PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>());
    hash.update(PHRASE);
    hash.update(body);
    hash.finish()
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
