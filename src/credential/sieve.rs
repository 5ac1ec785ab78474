//! Says fast and of nearly every text that none of the patterns is in it, by looking at four octets of every few dozen (after Wu and Manber, "A fast
//! algorithm for multi-pattern searching", 1994). Secrets are long and hardly ever there, which no search made for any patterns may count on.

/// Octets looked at together.
const GRAM: usize = 4;

/// Of patterns of at least [`GRAM`] octets.
pub struct Sieve {
    /// From one look to the next. A pattern of `stride + GRAM - 1` octets has a look that is all within it, wherever it begins.
    stride: usize,
    longest: usize,
    /// A bit for each hash of the grams at the first `stride` offsets of each pattern.
    grams: Box<[u64; 1024]>,
}

impl Sieve {
    /// `None` if a pattern is too short.
    pub fn new(patterns: &[impl AsRef<[u8]>]) -> Option<Self> {
        let lengths = patterns.iter().map(|pattern| pattern.as_ref().len());
        let (shortest, longest) = (lengths.clone().min()?, lengths.max()?);
        let stride = (shortest + 1).checked_sub(GRAM).filter(|stride| *stride > 0)?;
        let mut grams = Box::new([0; 1024]);
        for gram in patterns.iter().flat_map(|pattern| pattern.as_ref().windows(GRAM).take(stride)).filter_map(|gram| gram.first_chunk()) {
            let (word, bit) = place(*gram);
            grams[word] |= bit;
        }
        Some(Self { stride, longest, grams })
    }

    /// Octets of the longest pattern.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Parts of a text. Each pattern in it is whole in one of them, or there is none.
    pub fn parts<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        let mut look = self.stride - 1;
        std::iter::from_fn(move || {
            while let Some(gram) = text.get(look..).and_then(|rest| rest.first_chunk()) {
                let from = look + 1 - self.stride;
                look += self.stride;
                let (word, bit) = place(*gram);
                if self.grams[word] & bit != 0 {
                    return Some(&text[from..text.len().min(from + self.stride - 1 + self.longest)]);
                }
            }
            None
        })
    }
}

/// The word and the bit of a gram.
fn place(gram: [u8; GRAM]) -> (usize, u64) {
    let gram = u32::from_ne_bytes(gram);
    // Knuth's multiplicative hash; the upper half is the well mixed one.
    let hash = gram.wrapping_mul(0x9e37_79b1) >> 16;
    (hash as usize / 64, 1 << (hash % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_without_a_gram_cannot_be_sieved() {
        assert!(Sieve::new(&["long enough", "abc"]).is_none() && Sieve::new(&[""; 0]).is_none());
        assert!(Sieve::new(&["abcd"]).is_some());
    }

    #[test]
    fn what_is_not_there_is_hardly_ever_looked_at() {
        let sieve = Sieve::new(&["sk-test-0123456789", "c2stdGVzdC0wMTIzNDU2Nzg5"]).unwrap();
        let text: Vec<u8> = (0..100_000u32).map(|at| (at.wrapping_mul(at).wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
        assert!(sieve.parts(&text).count() < 50);
    }

    proptest! {
        #[test]
        fn no_pattern_is_missed(
            before in proptest::collection::vec(any::<u8>(), 0..80),
            patterns in proptest::collection::vec("[a-d]{4,40}", 1..6),
            after in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let sieve = Sieve::new(&patterns).unwrap();
            for pattern in &patterns {
                let text = [&before, pattern.as_bytes(), &after].concat();
                prop_assert!(sieve.parts(&text).any(|part| part.windows(pattern.len()).any(|window| window == pattern.as_bytes())));
            }
        }
    }
}
