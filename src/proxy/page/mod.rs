//! `http://mitm.it`: the certificate in use, for clients that have to be told to trust it. Answered here; nothing asked of it goes anywhere.
//!
//! The page is three files of HTML and one of CSS with a few values put in, so no template language is needed.

mod platform;

use std::convert::Infallible;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};

use super::tls::Authority;
use crate::{
    certificate::{fingerprint, jks, mobileconfig, mobileconfig::escaped, pkcs12, validity},
    host::Host,
    upstream::Body,
};
use platform::Platform;

/// The port that the page is on (RFC 9110 §4.2.1).
pub const PORT: u16 = 80;

const STYLE: &str = include_str!("style.css");

/// For how long the certificate is good, which is what the page has to say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the run; its programs trust it already.
    Run,
    /// It is stored, and used by each run in the environment mode.
    Stored,
}

/// What is sent and how it is called.
struct File {
    extension: &'static str,
    media_type: &'static str,
    bytes: Vec<u8>,
}

/// Whether a host is the page's.
pub fn is_at(host: &Host) -> bool {
    matches!(host, Host::Name(name) if name.as_str() == crate::dns::PAGE)
}

/// Answers one request of plain HTTP whose target is the page's host.
pub fn answer<B>(request: &Request<B>, authority: &Authority, lifetime: Lifetime) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "mitm.it answers GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let path = request.uri().path();
    if path == "/" {
        return html(StatusCode::OK, "Trust authsome’s certificate", &page(authority, lifetime, Platform::of(request.headers())));
    }
    match path.strip_prefix("/cert/").and_then(|extension| file(extension, authority)) {
        Some(file) => download(file),
        None => html(StatusCode::NOT_FOUND, "Nothing here", include_str!("missing.html")),
    }
}

/// Serves the page on a connection that was made to the page's address.
pub async fn serve(client: tokio::net::TcpStream, context: std::sync::Arc<super::Context>) {
    let service = hyper::service::service_fn(move |request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(answer(&request, &context.authority, Lifetime::Run)) }
    });
    if let Err(error) = super::http::http1().serve_connection(hyper_util::rt::TokioIo::new(client), service).await {
        tracing::debug!(%error, "page");
    }
}

fn file(extension: &str, authority: &Authority) -> Option<File> {
    let certificate = authority.certificate_der();
    let (extension, media_type, bytes) = match extension {
        "pem" => ("pem", "application/x-pem-file", authority.certificate_pem().as_bytes().to_vec()),
        "cer" => ("cer", "application/x-x509-ca-cert", certificate.to_vec()),
        "p12" => ("p12", "application/x-pkcs12", pkcs12::store(authority.common_name(), certificate, jks::PASSWORD).ok()?),
        "mobileconfig" => {
            let profile = mobileconfig::profile(authority.common_name(), certificate);
            ("mobileconfig", "application/x-apple-aspen-config", profile.into_bytes())
        }
        _ => return None,
    };
    Some(File { extension, media_type, bytes })
}

fn download(file: File) -> Response<Body> {
    let mut response = text(StatusCode::OK, file.media_type, file.bytes);
    // Safari installs a profile only if it may open it.
    let disposition = if file.extension == "mobileconfig" { "inline" } else { "attachment" };
    let value = format!("{disposition}; filename=\"authsome-ca.{}\"", file.extension);
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

fn page(authority: &Authority, lifetime: Lifetime, platform: Platform) -> String {
    let certificate = authority.certificate_der();
    let digest = fingerprint::sha256(certificate);
    let octets: Vec<_> = digest.split(':').collect();
    let groups: Vec<_> = octets.chunks(4).map(|group| format!("<span>{}</span>", group.join(":"))).collect();
    let [_, until] = validity(certificate).unwrap_or_default();
    let others = Platform::ALL.into_iter().filter(|other| *other != platform).map(|other| (other.name(), other.steps()));
    let programs = [
        ("Firefox", include_str!("steps/firefox.html")),
        ("Chrome and Chromium", include_str!("steps/chromium.html")),
        ("Java", include_str!("steps/java.html")),
    ];
    let others: String =
        others.chain(programs).map(|(name, steps)| format!("<details>\n<summary>{name}</summary>\n{steps}</details>\n")).collect();
    let (heading, lead, notice) = match lifetime {
        Lifetime::Run => ("You are all set", "Programs in this run trust authsome already. There is nothing to install.", RUN_NOTICE),
        Lifetime::Stored => (
            "Trust authsome on this device",
            "authsome opens connections to the services you have connected, to add your key. A program that does not know its certificate refuses them.",
            "",
        ),
    };
    let card = match lifetime {
        Lifetime::Run => format!("If a program here still refuses: {}", platform.name()),
        Lifetime::Stored => platform.name().to_owned(),
    };
    let values = [
        ("heading", heading),
        ("lead", lead),
        ("notice", notice),
        ("platform", &card),
        ("steps", platform.steps()),
        ("others", &others),
        ("fingerprint", &groups.join(" ")),
        ("name", &escaped(authority.common_name())),
        ("until", until.split('T').next().unwrap_or_default()),
    ];
    filled(include_str!("page.html"), &values)
}

const RUN_NOTICE: &str = r#"<aside class="note">
<p>These files hold the certificate of <b>this run</b>. It ends with the run and is worth nothing afterwards, so trust it nowhere else.</p>
<p>For one that stays, outside this run: <code>authsome ca export</code></p>
</aside>"#;

fn html(status: StatusCode, title: &str, main: &str) -> Response<Body> {
    let document = filled(include_str!("shell.html"), &[("title", title), ("style", STYLE), ("main", main)]);
    text(status, "text/html; charset=utf-8", document)
}

/// The template with each `{{name}}` replaced by its value, which is HTML.
fn filled(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

fn text(status: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let bytes = bytes.into();
    let length = bytes.len();
    let mut response = Response::new(Full::new(bytes).map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_LENGTH, length.into());
    protect(headers);
    response
}

/// Nothing but the page's own style takes effect in it, no other page holds it in a frame, and no copy is kept.
fn protect(headers: &mut HeaderMap) {
    let style = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::VARY, HeaderValue::from_static("user-agent, sec-ch-ua-platform"));
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(method: Method, path: &str, lifetime: Lifetime) -> (Response<()>, String) {
        let authority = Authority::new().unwrap();
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let (parts, body) = answer(&request, &authority, lifetime).into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(parts, ()), String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn whole_and_without_anything_from_elsewhere() {
        for lifetime in [Lifetime::Run, Lifetime::Stored] {
            let (response, page) = ask(Method::GET, "/", lifetime).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert!(!page.contains("{{") && !page.contains("<script") && !page.contains(" src=") && !page.contains(" style="), "{page}");
            assert_eq!(page.contains("this run"), lifetime == Lifetime::Run);
            assert_eq!(page.matches("<details>").count(), 7);
            assert!(!page.matches("://").any(|_| page.replace("http://mitm.it", "").contains("://")));
        }
    }

    #[tokio::test]
    async fn other_paths_and_methods() {
        for (method, path, want) in [
            (Method::GET, "/cert/exe", StatusCode::NOT_FOUND),
            (Method::GET, "/cert/../etc/passwd", StatusCode::NOT_FOUND),
            (Method::HEAD, "/cert/pem", StatusCode::OK),
            (Method::POST, "/", StatusCode::METHOD_NOT_ALLOWED),
        ] {
            let (response, _) = ask(method, path, Lifetime::Stored).await;
            assert_eq!(response.status(), want, "{path}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        }
        assert!(ask(Method::GET, "/no", Lifetime::Run).await.1.contains("href=\"/\""));
    }
}
