//! Answers of our own, marked so that a client can tell them from the API's.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};

use crate::upstream::Body;

const X_AUTHSOME_ERROR: HeaderName = HeaderName::from_static("x-authsome-error");

/// Why a request gets an answer of ours instead of the server's.
pub struct Refusal {
    pub status: StatusCode,
    /// Stable, for programs: `credential-unavailable`, `authority-mismatch`, `denied`, an upstream error's kind.
    pub kind: &'static str,
    pub message: String,
    /// What the user can do; empty if nothing.
    pub hint: String,
}

impl Refusal {
    pub fn response(&self) -> Response<Body> {
        let mut document = serde_json::json!({ "error": format!("authsome: {}", self.message) });
        if !self.hint.is_empty() {
            document["hint"] = self.hint.as_str().into();
        }
        let body = Full::new(Bytes::from(format!("{document}\n"))).map_err(|never| match never {}).boxed();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(X_AUTHSOME_ERROR, HeaderValue::from_static(self.kind));
        response
    }
}
