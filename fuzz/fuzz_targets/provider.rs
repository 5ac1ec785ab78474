//! A provider definition of a stranger's: valid or an error, never a panic.
#![no_main]

use authsome::provider::{Provider, Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = Provider::parse(text, Source::Bundled, Some("https://acme.test")) {
        let _ = error.to_string();
    }
});
