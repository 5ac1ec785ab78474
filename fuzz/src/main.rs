//! One binary for every target of `authsome::fuzz`; AUTHSOME_FUZZ_TARGET names the one to run. Without it, their names are printed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn chosen() -> fn(&[u8]) {
    let wanted = std::env::var("AUTHSOME_FUZZ_TARGET").unwrap_or_default();
    let Some((_, target)) = authsome::fuzz::TARGETS.iter().find(|(name, _)| *name == wanted) else {
        authsome::fuzz::TARGETS.iter().for_each(|(name, _)| println!("{name}"));
        std::process::exit(if wanted.is_empty() { 0 } else { 2 });
    };
    *target
}

fuzz_target!(init: { TARGET.get_or_init(chosen); }, |bytes: &[u8]| TARGET.get_or_init(chosen)(bytes));
