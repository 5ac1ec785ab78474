//! Sealing bytes for a key and opening them again, in the age format (age-encryption.org/v1).
use age::{DecryptError, Decryptor, Identity, Recipient};
use std::io::Read;
use zeroize::Zeroizing;

/// Why sealed bytes do not open.
#[derive(Debug, PartialEq, Eq)]
pub enum OpenError {
    WrongKey,
    Damaged(String),
}

pub fn seal(recipient: &impl Recipient, plaintext: &[u8]) -> Result<Vec<u8>, String> {
    age::encrypt(recipient, plaintext).map_err(|error| error.to_string())
}

pub fn open(identity: &dyn Identity, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let mut reader = Decryptor::new_buffered(sealed).and_then(|d| d.decrypt(std::iter::once(identity))).map_err(|error| match error {
        DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed => OpenError::WrongKey,
        other => OpenError::Damaged(first_line(&other)),
    })?;
    // The plaintext is shorter than the file; with room for all of it the buffer never moves and leaves no copy.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader.read_to_end(&mut plaintext).map_err(|_| OpenError::Damaged("its content does not match its seal".to_owned()))?;
    Ok(plaintext)
}

/// age adds advice on further lines; ours is given elsewhere.
fn first_line(error: &DecryptError) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_end_matches('.').to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::x25519;

    #[test]
    fn opens_with_its_own_key_only() {
        let key = x25519::Identity::generate();
        let sealed = seal(&key.to_public(), b"secret").unwrap();
        assert_eq!(open(&key, &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(open(&x25519::Identity::generate(), &sealed).unwrap_err(), OpenError::WrongKey);
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let key = x25519::Identity::generate();
        let sealed = seal(&key.to_public(), b"secret").unwrap();
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert!(open(&key, &changed).is_err(), "byte {i} changed");
            assert!(open(&key, &sealed[..i]).is_err(), "cut at {i}");
        }
    }
}
