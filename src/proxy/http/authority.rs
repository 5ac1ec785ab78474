//! Whether a request is meant for the host whose TLS it came in: one authority, said once or twice alike.

use http::{HeaderMap, Method, StatusCode, header, request::Parts, uri::Scheme};

use crate::host::{HTTPS, Host, Target};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("the request names no host")]
    Missing,
    #[error("the request has more than one Host field")]
    Duplicate,
    #[error("the request's host is not a host and port")]
    Malformed,
    #[error("the request is for {0}, but its TLS connection is for {1}")]
    Differs(Target, Target),
    #[error("the request's target is not an https URL of this host")]
    Scheme,
    #[error("CONNECT is not served inside a connection to an API")]
    Connect,
}

impl Mismatch {
    /// RFC 9112 §3.2: 400 for no Host, several, or an invalid one; RFC 9110 §15.5.20: 421 for another host's.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Duplicate | Self::Malformed | Self::Scheme | Self::Connect => StatusCode::BAD_REQUEST,
            Self::Differs(..) => StatusCode::MISDIRECTED_REQUEST,
        }
    }
}

/// Checks everything in `request` that names a host against `target`, the TLS name and the port of the connection.
pub fn agree(request: &Parts, target: &Target) -> Result<(), Mismatch> {
    if request.method == Method::CONNECT && request.extensions.get::<hyper::ext::Protocol>().is_none() {
        return Err(Mismatch::Connect);
    }
    if request.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTPS) {
        return Err(Mismatch::Scheme);
    }
    let named = request.uri.authority().map(|authority| authority.as_str());
    let host = host_field(&request.headers)?;
    if named.is_none() && host.is_none() {
        return Err(Mismatch::Missing);
    }
    for text in named.into_iter().chain(host).filter(|text| !target.is_plainly(text.as_bytes())) {
        let said = parse(text).ok_or(Mismatch::Malformed)?;
        if said != *target {
            return Err(Mismatch::Differs(said, target.clone()));
        }
    }
    Ok(())
}

fn host_field(headers: &HeaderMap) -> Result<Option<&str>, Mismatch> {
    let mut fields = headers.get_all(header::HOST).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => field.to_str().map(Some).map_err(|_| Mismatch::Malformed),
        (Some(_), Some(_)) => Err(Mismatch::Duplicate),
    }
}

/// `host[:port]`, RFC 9110 §7.2, and nothing else: no userinfo, no empty port.
fn parse(text: &str) -> Option<Target> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, port_number(port)?),
        _ => (text, HTTPS),
    };
    let host: Host = host.parse().ok()?;
    Some(Target { host, port })
}

fn port_number(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn check(uri: &str, hosts: &[&str], port: u16) -> Result<(), StatusCode> {
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(header::HOST, host.as_bytes().try_into().unwrap());
        }
        let target = Target { host: "api.acme.test".parse().unwrap(), port };
        agree(&request.into_parts().0, &target).map_err(|mismatch| mismatch.status())
    }

    #[test]
    fn agreement() {
        for (uri, hosts, port) in [
            ("/", &["api.acme.test"][..], 443),
            ("/", &["API.acme.test"], 443),
            ("/", &["api.acme.test."], 443),
            ("/", &["api.acme.test:443"], 443),
            ("/", &["api.acme.test:8443"], 8443),
            ("https://api.acme.test/x", &["api.acme.test"], 443),
            ("https://api.acme.test/x", &[], 443),
            ("*", &["api.acme.test"], 443),
        ] {
            assert_eq!(check(uri, hosts, port), Ok(()), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn disagreement() {
        let (bad, misdirected) = (Err(StatusCode::BAD_REQUEST), Err(StatusCode::MISDIRECTED_REQUEST));
        for (uri, hosts, port, want) in [
            ("/", &[][..], 443, bad),
            ("/", &["api.acme.test", "api.acme.test"], 443, bad),
            ("/", &["api.acme.test", "evil.test"], 443, bad),
            ("/", &["evil.test"], 443, misdirected),
            ("/", &["203.0.113.7"], 443, misdirected),
            ("/", &["[2001:db8::1]"], 443, misdirected),
            ("/", &["[2001:db8::1]:443"], 443, misdirected),
            ("/", &["api.acme.test:8443"], 443, misdirected),
            ("/", &["api.acme.test:80"], 443, misdirected),
            ("/", &["api.acme.test"], 8443, misdirected),
            ("/", &["api.acme.test.evil.test"], 443, misdirected),
            ("/", &["аpi.acme.test"], 443, bad),
            ("/", &["user@api.acme.test"], 443, bad),
            ("/", &["api.acme.test:"], 443, bad),
            ("/", &["api.acme.test:+443"], 443, bad),
            ("/", &["api.acme.test:99999"], 443, bad),
            ("/", &["api.acme.test, evil.test"], 443, bad),
            ("/", &["api.acme.test/"], 443, bad),
            ("/", &[""], 443, bad),
            ("https://evil.test/", &["api.acme.test"], 443, misdirected),
            ("https://api.acme.test/", &["evil.test"], 443, misdirected),
            ("https://user@api.acme.test/", &["api.acme.test"], 443, bad),
            ("https://api.acme.test:444/", &["api.acme.test"], 443, misdirected),
            ("http://api.acme.test/", &["api.acme.test"], 443, bad),
        ] {
            assert_eq!(check(uri, hosts, port), want, "{uri} {hosts:?} {port}");
        }
    }

    #[test]
    fn connect_is_refused() {
        let request = Request::builder().method("CONNECT").uri("api.acme.test:443").header("host", "api.acme.test").body(()).unwrap();
        let target = Target { host: "api.acme.test".parse().unwrap(), port: 443 };
        assert_eq!(agree(&request.into_parts().0, &target), Err(Mismatch::Connect));
    }
}
