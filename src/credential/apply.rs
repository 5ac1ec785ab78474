//! The only code that writes a secret into a request.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri,
    header::{AUTHORIZATION, CONNECTION},
    uri::PathAndQuery,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{host::Host, secret::Secret, upstream::fields};

use super::{Grant, Permit, injection::Write};

/// Everything but unreserved characters is encoded (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request that may leave. Made only by [`apply`].
pub struct Authorized<B> {
    request: Request<B>,
}

impl<B> Authorized<B> {
    pub fn into_request(self) -> Request<B> {
        self.request
    }
}

/// Why a credential cannot be written; never with its text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("the credential of {provider} has no field `{field}`")]
    NoField { provider: String, field: String },
    #[error("the credential of {provider} holds a character that `{place}` cannot carry")]
    Unwritable { provider: String, place: String },
}

/// Writes the credential where the rules say, over whatever the client sent; header values are marked sensitive.
/// Hop-by-hop fields must be gone before: what `connection` lists is removed on the way (RFC 9110 §7.6.1).
pub fn apply<B>(permit: Permit, mut request: Request<B>) -> Result<Authorized<B>, ApplyError> {
    if let Permit::Inject { grant, host } = permit {
        inject(&grant, &host, &mut request)?;
    }
    Ok(Authorized { request })
}

fn inject<B>(grant: &Grant, host: &Host, request: &mut Request<B>) -> Result<(), ApplyError> {
    let fields = &grant.credential.fields;
    let no_field = |field| ApplyError::NoField { provider: grant.provider.to_string(), field };
    let unwritable = |place: &str| ApplyError::Unwritable { provider: grant.provider.to_string(), place: place.to_owned() };
    let verbatim = str::to_owned;
    let encoded = |value: &str| utf8_percent_encode(value, RESERVED).to_string();
    if fields.values().any(|value| value.expose().contains(['\r', '\n', '\0'])) {
        return Err(unwritable("any request"));
    }
    // Conditions look at the path as the client sent it, whatever an earlier entry made of it.
    let path = request.uri().path().to_owned();
    for entry in grant.injection.entries.iter().filter(|entry| entry.applies(host, &path)) {
        match &entry.write {
            Write::Header { name, value } => {
                let value = value.fill(fields, verbatim).map_err(no_field)?;
                overwrite(request.headers_mut(), name, &value).ok_or_else(|| unwritable(name.as_str()))?;
            }
            Write::Basic { username, password } => {
                let username = username.fill(fields, verbatim).map_err(no_field)?;
                let password = password.fill(fields, verbatim).map_err(no_field)?;
                if username.expose().contains(':') {
                    // The first colon ends the user name (RFC 7617 §2).
                    return Err(unwritable("a user name"));
                }
                let pair = Secret::new(format!("{}:{}", username.expose(), password.expose()));
                let value = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
                overwrite(request.headers_mut(), &AUTHORIZATION, &value).ok_or_else(|| unwritable("authorization"))?;
            }
            Write::Query { name, value } => {
                let value = value.fill(fields, encoded).map_err(no_field)?;
                let uri = with_query(request.uri(), name, value.expose()).ok_or_else(|| unwritable(name))?;
                *request.uri_mut() = uri;
            }
            Write::Path { value } => {
                let value = value.fill(fields, encoded).map_err(no_field)?;
                let uri = with_path(request.uri(), &grant.placeholder, value.expose()).ok_or_else(|| unwritable("the path"))?;
                *request.uri_mut() = uri;
            }
        }
    }
    Ok(())
}

/// Every value under that name goes, and no `connection` option may take ours away on the way.
fn overwrite(headers: &mut HeaderMap, name: &HeaderName, value: &Secret<String>) -> Option<()> {
    let mut value = HeaderValue::from_str(value.expose()).ok()?;
    value.set_sensitive(true);
    headers.insert(name, value);
    let lists_us = |options: &HeaderValue| {
        options.to_str().map_or(true, |options| options.split(',').any(|option| option.trim().eq_ignore_ascii_case(name.as_str())))
    };
    if headers.get_all(CONNECTION).iter().any(lists_us) {
        fields::retain(headers, |name| *name != CONNECTION);
    }
    Some(())
}

/// Sets one parameter; every other parameter keeps its bytes and place.
fn with_query(uri: &Uri, name: &str, value: &str) -> Option<Uri> {
    let is_ours = |parameter: &&str| {
        let spelled = parameter.split('=').next().unwrap_or_default().replace('+', " ");
        percent_decode_str(&spelled).decode_utf8_lossy() == name
    };
    let ours = format!("{}={value}", utf8_percent_encode(name, RESERVED));
    let mut parameters: Vec<&str> = Vec::new();
    for parameter in uri.query().filter(|query| !query.is_empty()).into_iter().flat_map(|query| query.split('&')) {
        match (is_ours(&parameter), parameters.contains(&ours.as_str())) {
            (true, false) => parameters.push(&ours),
            (true, true) => {}
            (false, _) => parameters.push(parameter),
        }
    }
    if !parameters.contains(&ours.as_str()) {
        parameters.push(&ours);
    }
    rebuild(uri, &format!("{}?{}", uri.path(), parameters.join("&")))
}

/// Replaces the placeholder in the path, also where a client has percent-encoded it.
fn with_path(uri: &Uri, placeholder: &str, value: &str) -> Option<Uri> {
    let encoded = utf8_percent_encode(placeholder, RESERVED).to_string();
    let path = uri.path().replace(placeholder, value).replace(&encoded, value);
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    rebuild(uri, &format!("{path}{query}"))
}

fn rebuild(uri: &Uri, path_and_query: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use crate::{
        credential::{Credential, Injection},
        provider::schema::Inject,
        route::Forward,
    };

    use super::*;

    fn grant(rules: &str, fields: &[(&str, &str)]) -> Grant {
        let entries: Vec<Inject> = serde_json::from_str(rules).unwrap();
        let names: Vec<String> = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
        let values: BTreeMap<_, _> = fields.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect();
        Grant {
            provider: "acme".parse().unwrap(),
            injection: Arc::new(Injection::compile(&entries, &names).unwrap()),
            credential: Arc::new(Credential { fields: values }),
            placeholder: "authsome-proxy-managed".into(),
            needles: None,
        }
    }

    fn applied(rules: &str, fields: &[(&str, &str)], request: http::request::Builder) -> Result<Request<()>, ApplyError> {
        let permit = Permit::Inject { grant: grant(rules, fields), host: "api.acme.test".parse().unwrap() };
        apply(permit, request.body(()).unwrap()).map(Authorized::into_request)
    }

    fn headers<'a>(request: &'a Request<()>, name: &str) -> Vec<&'a str> {
        request.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    const BEARER: &str = r#"[{"header": "Authorization", "value": "Bearer {api_key}"}]"#;

    #[test]
    fn a_header_replaces_every_value_the_client_sent() {
        let request = Request::get("/x").header("authorization", "Bearer authsome-proxy-managed").header("AUTHORIZATION", "Basic other");
        let request = applied(BEARER, &[("api_key", "K")], request).unwrap();
        assert_eq!(headers(&request, "authorization"), ["Bearer K"]);
        assert!(request.headers()["authorization"].is_sensitive());
    }

    #[test]
    fn a_connection_option_cannot_take_it_away() {
        for options in ["authorization", "close, Authorization", "x,\tAUTHORIZATION ,y"] {
            let request = applied(BEARER, &[("api_key", "K")], Request::get("/").header("connection", options)).unwrap();
            assert_eq!((headers(&request, "connection"), headers(&request, "authorization")), (vec![], vec!["Bearer K"]), "{options}");
        }
        let request = applied(BEARER, &[("api_key", "K")], Request::get("/").header("connection", "upgrade")).unwrap();
        assert_eq!(headers(&request, "connection"), ["upgrade"]);
    }

    #[test]
    fn several_fields_and_basic() {
        let two = r#"[{"header": "DD-API-KEY", "value": "{api_key}"}, {"header": "DD-APPLICATION-KEY", "value": "{app_key}"}]"#;
        let request = applied(two, &[("api_key", "A"), ("app_key", "B")], Request::get("/")).unwrap();
        assert_eq!((headers(&request, "dd-api-key"), headers(&request, "dd-application-key")), (vec!["A"], vec!["B"]));
        let basic = r#"[{"basic": {"username": "{sid}", "password": "{api_key}"}}]"#;
        let request = applied(basic, &[("sid", "AC1"), ("api_key", "K")], Request::get("/")).unwrap();
        assert_eq!(headers(&request, "authorization"), ["Basic QUMxOks="]);
        assert!(applied(basic, &[("sid", "A:C"), ("api_key", "K")], Request::get("/")).is_err(), "a colon would shift the boundary");
    }

    #[test]
    fn a_query_parameter_is_set_and_the_others_keep_their_bytes() {
        let rules = r#"[{"query": "key", "value": "{api_key}"}]"#;
        for (before, want) in [
            ("/x", "/x?key=K%2F%2B"),
            ("/x?", "/x?key=K%2F%2B"),
            ("/x?a=%2f&b=1+2", "/x?a=%2f&b=1+2&key=K%2F%2B"),
            ("/x?key=old&a=1", "/x?key=K%2F%2B&a=1"),
            ("/x?a=1&key=old&k%65y=older&b", "/x?a=1&key=K%2F%2B&b"),
            ("/x?key", "/x?key=K%2F%2B"),
            ("/x?keys=1&&monkey=2", "/x?keys=1&&monkey=2&key=K%2F%2B"),
        ] {
            let request = applied(rules, &[("api_key", "K/+")], Request::get(before)).unwrap();
            assert_eq!(request.uri().to_string(), want, "{before}");
        }
    }

    #[test]
    fn the_placeholder_in_the_path_is_replaced() {
        let rules = r#"[{"path": "{api_key}"}]"#;
        let request = applied(rules, &[("api_key", "12:A/b")], Request::get("/botauthsome-proxy-managed/getMe?x=1")).unwrap();
        assert_eq!(request.uri().to_string(), "/bot12%3AA%2Fb/getMe?x=1");
        let request = applied(rules, &[("api_key", "12:A/b")], Request::get("/other")).unwrap();
        assert_eq!(request.uri().to_string(), "/other");
    }

    #[test]
    fn conditions_choose_the_entry() {
        let rules = r#"[{"header": "Authorization", "value": "Bearer {api_key}", "on": {"path": "/api/**"}},
                        {"basic": {"username": "x", "password": "{api_key}"}, "on": {"host": "api.acme.test", "path": "/**/info/refs"}},
                        {"header": "X-Other", "value": "{api_key}", "on": {"host": "other.test"}}]"#;
        let request = applied(rules, &[("api_key", "K")], Request::get("/api/x")).unwrap();
        assert_eq!((headers(&request, "authorization"), headers(&request, "x-other")), (vec!["Bearer K"], vec![]));
        let request = applied(rules, &[("api_key", "K")], Request::get("/a/b.git/info/refs?service=x")).unwrap();
        assert_eq!(headers(&request, "authorization"), ["Basic eDpL"]);
    }

    #[test]
    fn a_path_that_may_lead_elsewhere_meets_no_condition() {
        let rules = r#"[{"header": "X-Key", "value": "{api_key}", "on": {"path": "/api/**"}},
                        {"basic": {"username": "x", "password": "{api_key}"}, "on": {"path": "/*/*/info/refs"}}]"#;
        for path in ["/api/../x", "/api/%2e%2e/x", "/api//x", "/api/..%2fx", "/a/../info/refs", "/%2E/b/info/refs", "/a/b/info/refs/."] {
            let request = applied(rules, &[("api_key", "K")], Request::get(path)).unwrap();
            assert!(request.headers().is_empty(), "{path}");
        }
    }

    #[test]
    fn a_value_that_would_end_the_header_is_refused_without_being_told() {
        for value in ["a\r\nX: y", "a\nb", "a\0b"] {
            for rules in [BEARER, r#"[{"query": "key", "value": "{api_key}"}]"#] {
                let error = applied(rules, &[("api_key", value)], Request::get("/")).unwrap_err().to_string();
                assert!(error.contains("acme") && !error.contains(value), "{error}");
            }
        }
    }

    #[test]
    fn an_unchanged_request_is_unchanged() {
        let request = Request::get("/x?authsome-proxy-managed").header("authorization", "Bearer authsome-proxy-managed").body(()).unwrap();
        let request = apply(Permit::Unchanged(Forward::NoPath), request).unwrap().into_request();
        assert_eq!(
            (headers(&request, "authorization"), request.uri().to_string()),
            (vec!["Bearer authsome-proxy-managed"], "/x?authsome-proxy-managed".into())
        );
    }
}
