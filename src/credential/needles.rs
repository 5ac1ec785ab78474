//! The spellings in which a value is looked for: an injected one that could come back, a placeholder that goes out.

use std::sync::{Arc, LazyLock};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{Engine, engine::general_purpose};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::sieve::Sieve;

/// Shorter values turn up by chance, and filling those in would damage honest answers.
const SHORTEST: usize = 12;

/// Every spelling of the values that are looked for.
pub struct Needles {
    automaton: AhoCorasick,
    sieve: Sieve,
    spellings: Vec<Vec<u8>>,
    /// The bytes that a spelling begins with.
    first: Box<[bool; 256]>,
}

/// Put together when something is first looked for, which a run may never have to.
pub type LazyNeedles = LazyLock<Option<Arc<Needles>>, Box<dyn FnOnce() -> Option<Arc<Needles>> + Send>>;

impl Needles {
    /// Looks for each value as it is, percent-encoded, and in base64, also as a part of what was encoded. `None` when no value is long enough to be looked for.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Arc<Self>> {
        let mut spellings: Vec<Vec<u8>> = values.into_iter().filter(|value| value.len() >= SHORTEST).flat_map(spellings).collect();
        spellings.sort();
        spellings.dedup();
        if spellings.is_empty() {
            return None;
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&spellings).ok()?;
        let sieve = Sieve::new(&spellings)?;
        let mut first = Box::new([false; 256]);
        spellings.iter().for_each(|spelling| first[usize::from(spelling[0])] = true);
        Some(Arc::new(Self { automaton, sieve, spellings, first }))
    }

    /// Overwrites every hit; how many there were.
    pub fn fill(&self, bytes: &mut [u8]) -> u64 {
        let hits: Vec<_> = self.automaton.find_iter(&*bytes).map(|hit| hit.range()).collect();
        for range in &hits {
            bytes[range.clone()].fill(b'*');
        }
        hits.len() as u64
    }

    /// How many of the last bytes could be the beginning of a hit.
    pub fn begun(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(self.sieve.longest() - 1);
        (from..bytes.len())
            .find(|&at| self.first[usize::from(bytes[at])] && self.spellings.iter().any(|spelling| spelling.starts_with(&bytes[at..])))
            .map_or(0, |at| bytes.len() - at)
    }

    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.sieve.parts(bytes).any(|part| self.automaton.is_match(part))
    }

    /// Overwrites hits in header values; how many there were.
    pub fn headers(&self, headers: &mut HeaderMap) -> u64 {
        let mut hits = 0;
        for value in headers.values_mut() {
            if self.is_in(value.as_bytes()) {
                let mut bytes = value.as_bytes().to_vec();
                hits += self.fill(&mut bytes);
                // Asterisks in place of bytes that were legal leave the value legal.
                *value = HeaderValue::from_bytes(&bytes).unwrap_or_else(|_| HeaderValue::from_static("*"));
            }
        }
        hits
    }
}

/// Raw, percent-encoded, and what is left of the base64 of any text that contains the value, wherever in a group of three it begins.
fn spellings(value: &str) -> Vec<Vec<u8>> {
    let mut all = vec![value.as_bytes().to_vec()];
    let encoded = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
    // Unreserved characters (RFC 3986 §2.3) are left alone by most encoders.
    let usual = encoded.replace("%2D", "-").replace("%2E", ".").replace("%5F", "_").replace("%7E", "~");
    all.extend([&usual, &encoded].into_iter().flat_map(|text| [lowercase_escapes(text), text.clone().into_bytes()]));
    for offset in 0..3 {
        let padded = [&[0; 3][..offset], value.as_bytes()].concat();
        for engine in [&general_purpose::STANDARD_NO_PAD, &general_purpose::URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded).into_bytes();
            // The first characters also encode what stands before the value, the last what stands behind it.
            let first = (offset * 4).div_ceil(3);
            let last = padded.len() * 4 / 3;
            all.push(text[first..last].to_vec());
        }
    }
    all
}

/// `%2F` as `%2f`.
fn lowercase_escapes(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for at in 0..bytes.len() {
        if bytes[at] == b'%' {
            bytes[at + 1..at + 3].make_ascii_lowercase();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-test-abc/def+0123456789";

    #[test]
    fn short_values_are_not_looked_for() {
        assert!(Needles::new(["elevenbytes"]).is_none());
        assert!(Needles::new(["twelve-bytes"]).is_some());
    }

    #[test]
    fn headers_are_filled_in() {
        let mut headers = HeaderMap::from_iter([(http::header::SERVER, HeaderValue::from_str(&format!("saw {KEY}")).unwrap())]);
        assert_eq!(Needles::new([KEY]).unwrap().headers(&mut headers), 1);
        assert_eq!(headers[http::header::SERVER], format!("saw {}", "*".repeat(KEY.len())));
    }
}
