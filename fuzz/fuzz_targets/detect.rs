//! The first bytes of a connection, in one piece: bounded, never a panic, and every byte read is kept for the replay.
#![no_main]

use authsome::proxy::detect::detect;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut client = bytes;
    if let Ok(detection) = runtime.block_on(detect(&mut client)) {
        assert_eq!(detection.seen, bytes[..bytes.len() - client.len()]);
    }
});
