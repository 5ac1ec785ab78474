//! What a resolver answers: rewritten or refused, and what is rewritten parses and is rewritten into itself.
#![no_main]

use authsome::dns::rewrite_answer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for v6 in [false, true] {
        if let Ok(rewritten) = rewrite_answer(bytes, 7, v6) {
            assert!(rewrite_answer(&rewritten.bytes, 7, v6).is_ok());
        }
    }
});
