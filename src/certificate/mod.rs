//! One certificate in the forms that systems and programs take to trust it. No form holds a private key.

pub mod der;
pub mod fingerprint;
pub mod jks;
pub mod mobileconfig;
pub mod pkcs12;

use der::{Reader, SEQUENCE, UTC_TIME};

/// From when until when a certificate (DER) holds, as RFC 3339 has it. `None`: it is no certificate (RFC 5280 §4.1).
pub fn validity(certificate: &[u8]) -> Option<[String; 2]> {
    let mut to_be_signed = Reader(certificate).element(SEQUENCE).ok()?.element(SEQUENCE).ok()?;
    // Version, serial number, algorithm and issuer come before it.
    for _ in 0..4 {
        to_be_signed.any().ok()?;
    }
    let mut validity = to_be_signed.element(SEQUENCE).ok()?;
    Some([time(&mut validity)?, time(&mut validity)?])
}

/// `YYMMDDHHMMSSZ`, in years from 1950 on, or GeneralizedTime, which has four digits of the year (RFC 5280 §4.1.2.5).
fn time(reader: &mut Reader) -> Option<String> {
    let (tag, Reader(digits)) = reader.any().ok()?;
    let digits = str::from_utf8(digits).ok()?;
    let century = match tag {
        UTC_TIME if digits < "50" => "20",
        UTC_TIME => "19",
        _ => "",
    };
    let whole = format!("{century}{digits}");
    let part = |from: usize, to: usize| whole.get(from..to);
    let (date, time) = ([part(0, 4)?, part(4, 6)?, part(6, 8)?].join("-"), [part(8, 10)?, part(10, 12)?, part(12, 14)?].join(":"));
    Some(format!("{date}T{time}Z"))
}

/// Why a key store cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the key store: {0}")]
    Read(#[source] std::io::Error),
    #[error("neither a JKS key store of version 2 nor a PKCS#12 one")]
    Format,
    #[error("the PKCS#12 key store is encrypted")]
    Encrypted,
    #[error("too large for a JKS key store")]
    TooLarge,
    #[error("the system gives no random bytes")]
    Random,
}
