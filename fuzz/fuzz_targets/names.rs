//! What users and files write: hosts, `api_url`s, rules, paths. Nothing panics, and what is accepted is accepted again as it prints.
#![no_main]

use authsome::{
    host::Host,
    route::{ApiUrl, PathPrefix, policy::Rule},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(host) = text.parse::<Host>() {
        assert_eq!(host.to_string().parse::<Host>().as_ref(), Ok(&host));
    }
    if let Ok(url) = text.parse::<ApiUrl>() {
        let printed = url.to_string();
        assert_eq!(printed.parse::<ApiUrl>().map(|again| again.to_string()).as_deref(), Ok(printed.as_str()));
    }
    if let Ok(rule) = text.parse::<Rule>() {
        assert!(rule.to_string().parse::<Rule>().is_ok());
    }
    let _ = PathPrefix::new("/api").map(|prefix| prefix.matches(text));
});
