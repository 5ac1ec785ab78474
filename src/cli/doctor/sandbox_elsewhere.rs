//! What a transparent run needs, where there is none.

use super::Check;

pub fn privileged() -> Vec<Check> {
    vec![Check::warning("sandbox", "this system has no network namespaces", "run programs without --transparent, or on Linux")]
}

pub fn unprivileged() -> Vec<Check> {
    Vec::new()
}
