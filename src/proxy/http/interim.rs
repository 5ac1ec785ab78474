//! Interim answers (RFC 9110 §15.2): `102 Processing`, `103 Early Hints` and whatever else a server says before its final answer. `100 Continue` is
//! between each side and hyper.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::{Request, Version, header};

use super::{hop, scrub::Hits};
use crate::{
    credential::Needles,
    upstream::{Body, Inserts, fields, on_interim},
};

/// Has the interim answers to this request passed on at once, under the same rules as the final one. HTTP/1.0 knows none, and hyper can neither
/// receive nor send them in HTTP/2.
pub fn pass_on(request: &mut Request<Body>, inserts: &Inserts, needles: Option<Arc<Needles>>, hits: Hits) {
    if request.version() != Version::HTTP_11 {
        return;
    }
    let inserts = inserts.clone();
    on_interim(request, move |status, headers| {
        let mut headers = headers.clone();
        hop::strip(&mut headers, false);
        // Not in any of them (RFC 9110 §8.6), and a client might believe it.
        fields::retain(&mut headers, |name| *name != header::CONTENT_LENGTH);
        if let Some(needles) = &needles {
            hits.fetch_add(needles.headers(&mut headers), Relaxed);
        }
        let reason = status.canonical_reason().unwrap_or_default();
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
        fields::write(&headers, &mut head);
        inserts.interim(&head);
    });
}
