//! Proxies of the user's on the way out: which one a connection goes through, and the tunnel through it.

use super::{
    NoProxy, UpstreamError,
    outbound::{Io, Outbound},
};
use crate::{
    host::{Host, HostError, Target},
    secret::Secret,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use std::{fmt, io, sync::Arc};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_socks::tcp::Socks5Stream;

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Http,
    /// The same inside TLS, verified like any other server's.
    Https,
    /// RFC 1928; names are looked up by the proxy.
    Socks5,
}

/// One proxy.
pub struct Proxy {
    pub kind: Kind,
    pub target: Target,
    login: Option<Login>,
}

struct Login {
    user: String,
    password: Secret<String>,
}

/// Which proxy each connection of a run goes through. As text the proxies' hosts and ports; a password is never shown.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Chosen>>);

struct Chosen {
    /// For plain HTTP, which is what port 80 is taken for.
    http: Option<Arc<Proxy>>,
    /// For everything else.
    other: Option<Arc<Proxy>>,
    no: NoProxy,
}

/// A proxy setting that cannot be used. It does not repeat the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct InvalidProxy {
    /// The flag, key or variable.
    pub setting: &'static str,
    pub problem: &'static str,
}

/// The schemes of a proxy's URL.
const SCHEMES: &str = "it is no http://, https:// or socks5:// URL";

impl Proxies {
    /// Everything goes through the proxy of this URL. `setting` is what named it.
    pub fn all(setting: &'static str, url: &str) -> Result<Self, InvalidProxy> {
        let proxy = Arc::new(Proxy::parse(setting, url)?);
        Ok(Self::new(Some(proxy.clone()), Some(proxy), ""))
    }

    /// HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, upper case first; HTTP_PROXY is not read in upper case by CGI programs, since there a
    /// client can set it (CVE-2016-5385).
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, InvalidProxy> {
        let get = |name: &str| env(name).filter(|value| !value.is_empty());
        let read = |names: [&'static str; 2]| {
            let found = names.into_iter().find_map(|name| Some((name, get(name)?)));
            found.map(|(name, url)| Proxy::parse(name, &url).map(Arc::new)).transpose()
        };
        let all = read(["ALL_PROXY", "all_proxy"])?;
        let upper = if get("REQUEST_METHOD").is_some() { "http_proxy" } else { "HTTP_PROXY" };
        let http = read([upper, "http_proxy"])?.or_else(|| all.clone());
        let other = read(["HTTPS_PROXY", "https_proxy"])?.or(all);
        let no = get("NO_PROXY").or_else(|| get("no_proxy")).unwrap_or_default();
        Ok(Self::new(http, other, &no))
    }

    fn new(http: Option<Arc<Proxy>>, other: Option<Arc<Proxy>>, no: &str) -> Self {
        if http.is_none() && other.is_none() {
            return Self(None);
        }
        Self(Some(Arc::new(Chosen { http, other, no: NoProxy::parse(no) })))
    }

    /// The proxy for connections to this target; None: they go direct.
    pub fn of(&self, target: &Target) -> Option<&Arc<Proxy>> {
        let chosen = self.0.as_ref()?;
        if chosen.no.covers(target) {
            return None;
        }
        if target.port == 80 { chosen.http.as_ref() } else { chosen.other.as_ref() }
    }

    /// Whether a proxy is asked to look this name up, on one port or another.
    pub fn look_up(&self, host: &Host) -> bool {
        [80, 443].into_iter().any(|port| self.of(&Target { host: host.clone(), port }).is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each once.
    pub fn each(&self) -> impl Iterator<Item = &Arc<Proxy>> {
        let (other, http) = self.0.as_ref().map_or((None, None), |chosen| (chosen.other.as_ref(), chosen.http.as_ref()));
        other.into_iter().chain(http.filter(|http| other.is_none_or(|other| other.target != http.target)))
    }
}

impl fmt::Display for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.each().map(|proxy| proxy.target.to_string()).collect();
        f.write_str(&names.join(", "))
    }
}

impl Proxy {
    /// `[SCHEME://][USER[:PASSWORD]@]HOST:PORT[/]`; without a scheme it is http, as curl(1) has it.
    fn parse(setting: &'static str, text: &str) -> Result<Self, InvalidProxy> {
        let invalid = |problem| InvalidProxy { setting, problem };
        let uri: Uri = text.trim().parse().map_err(|_| invalid(SCHEMES))?;
        let kind = match uri.scheme_str() {
            None | Some("http") => Kind::Http,
            Some("https") => Kind::Https,
            Some("socks5" | "socks5h") => Kind::Socks5,
            Some(_) => return Err(invalid(SCHEMES)),
        };
        let authority = uri.authority().ok_or_else(|| invalid("the proxy's URL names no host"))?;
        let port = uri.port_u16().filter(|port| *port != 0).ok_or_else(|| invalid("the proxy's URL names no port"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(invalid("the proxy's URL has a path; it ends after the port"));
        }
        let host = authority.host().parse().map_err(|_: HostError| invalid("the proxy's URL names no host"))?;
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).ok();
        let login = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((info, _)) => {
                let (user, password) = info.split_once(':').unwrap_or((info, ""));
                let decoded = decode(user).zip(decode(password));
                let (user, password) =
                    decoded.ok_or_else(|| invalid("user or password in the proxy's URL are not percent-encoded UTF-8"))?;
                Some(Login { user, password: Secret::new(password) })
            }
        };
        Ok(Self { kind, target: Target { host, port }, login })
    }

    /// `Basic …` (RFC 7617).
    pub fn authorization(&self) -> Option<HeaderValue> {
        let login = self.login.as_ref()?;
        let pair = Secret::new(format!("{}:{}", login.user, login.password.expose()));
        let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(pair.expose()))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Asks for a tunnel to `target`, with CONNECT (RFC 9110 §9.3.6).
    pub async fn connect(&self, io: impl Io + 'static, target: &Target) -> Result<Outbound, UpstreamError> {
        let broken = |source| UpstreamError::ProxyHttp { proxy: self.target.clone(), source };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
        tokio::spawn(async move { connection.with_upgrades().await });
        let mut response = sender.send_request(self.request(target)?).await.map_err(broken)?;
        self.check(&response)?;
        if !response.status().is_success() {
            return Err(self.refused(target, response.status().to_string(), response.status().is_server_error()));
        }
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(broken)?;
        Ok(match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) if parts.read_buf.is_empty() => Outbound::Socket(parts.io.into_inner()),
            // What the server said first came together with the proxy's answer.
            Ok(parts) => {
                let (reader, writer) = parts.io.into_inner().into_split();
                Outbound::tunnel(tokio::io::join(io::Cursor::new(parts.read_buf).chain(reader), writer))
            }
            Err(upgraded) => Outbound::tunnel(TokioIo::new(upgraded)),
        })
    }

    fn request(&self, target: &Target) -> Result<Request<Empty<Bytes>>, UpstreamError> {
        let unnameable = |_| self.refused(target, "it cannot be named in a request".to_owned(), false);
        let authority = target.to_string();
        let mut request = Request::builder().method(Method::CONNECT).uri(&authority).header(header::HOST, authority.as_str());
        if let Some(value) = self.authorization() {
            request = request.header(header::PROXY_AUTHORIZATION, value);
        }
        request.body(Empty::new()).map_err(unnameable)
    }

    /// Whether the proxy wants to know who asks, which is not for the client to answer.
    pub fn check<B>(&self, response: &Response<B>) -> Result<(), UpstreamError> {
        if response.status() != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Ok(());
        }
        let schemes = response.headers().get_all(header::PROXY_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let schemes: Vec<_> = schemes.filter_map(|value| value.split_ascii_whitespace().next()).collect();
        Err(UpstreamError::ProxyLogin {
            proxy: self.target.clone(),
            given: self.login.is_some(),
            basic: schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")),
            reason: response.status().to_string(),
        })
    }

    /// Asks for a tunnel to `target` by SOCKS (RFC 1928, RFC 1929).
    pub async fn socks(&self, socket: TcpStream, target: &Target) -> Result<Outbound, UpstreamError> {
        let name = target.host.to_string();
        let tunnel = match &self.login {
            None => match &target.host {
                Host::Ip(ip) => Socks5Stream::connect_with_socket(socket, (*ip, target.port)).await,
                Host::Name(_) => Socks5Stream::connect_with_socket(socket, (name.as_str(), target.port)).await,
            },
            Some(login) => {
                let (user, password) = (login.user.as_str(), login.password.expose());
                match &target.host {
                    Host::Ip(ip) => Socks5Stream::connect_with_password_and_socket(socket, (*ip, target.port), user, password).await,
                    Host::Name(_) => {
                        Socks5Stream::connect_with_password_and_socket(socket, (name.as_str(), target.port), user, password).await
                    }
                }
            }
        };
        match tunnel {
            Ok(tunnel) => Ok(Outbound::Socket(tunnel.into_inner())),
            Err(error) => Err(self.socks_failed(target, error)),
        }
    }

    fn socks_failed(&self, target: &Target, error: tokio_socks::Error) -> UpstreamError {
        use tokio_socks::Error as Socks;
        let proxy = self.target.clone();
        match error {
            Socks::NoAcceptableAuthMethods | Socks::PasswordAuthFailure(_) | Socks::InvalidAuthValues(_) => {
                UpstreamError::ProxyLogin { proxy, given: self.login.is_some(), basic: true, reason: error.to_string() }
            }
            Socks::ConnectionNotAllowedByRuleset => self.refused(target, error.to_string(), false),
            Socks::GeneralSocksServerFailure
            | Socks::NetworkUnreachable
            | Socks::HostUnreachable
            | Socks::ConnectionRefused
            | Socks::TtlExpired => self.refused(target, error.to_string(), true),
            other => UpstreamError::ProxySocks { proxy, reason: other.to_string() },
        }
    }

    fn refused(&self, target: &Target, reason: String, unreachable: bool) -> UpstreamError {
        UpstreamError::ProxyRefused { proxy: self.target.clone(), target: target.clone(), reason, unreachable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        let (host, port) = text.rsplit_once(':').unwrap();
        Target { host: host.parse().unwrap(), port: port.parse().unwrap() }
    }

    fn from_env(variables: &[(&str, &str)]) -> Result<Proxies, InvalidProxy> {
        Proxies::from_env(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    fn of(proxies: &Proxies, text: &str) -> Option<String> {
        proxies.of(&target(text)).map(|proxy| proxy.target.to_string())
    }

    #[test]
    fn urls() {
        for (text, kind, to, authorization) in [
            ("http://proxy.acme.test:3128", Kind::Http, "proxy.acme.test:3128", None),
            ("proxy.acme.test:3128", Kind::Http, "proxy.acme.test:3128", None),
            ("https://ada@proxy.acme.test:3129/", Kind::Https, "proxy.acme.test:3129", Some("Basic YWRhOg==")),
            (
                "http://Aladdin:open%20sesame@[2001:db8::1]:8080",
                Kind::Http,
                "[2001:db8::1]:8080",
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ),
            ("socks5h://a:b%3Ac@203.0.113.1:1080", Kind::Socks5, "203.0.113.1:1080", Some("Basic YTpiOmM=")),
        ] {
            let proxy = Proxy::parse("--upstream", text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let said = proxy.authorization().map(|value| value.to_str().unwrap().to_owned());
            assert_eq!((proxy.kind, proxy.target.to_string().as_str(), said.as_deref()), (kind, to, authorization), "{text}");
        }
        for (text, problem) in [
            ("http://ada:secret@proxy.acme.test", "names no port"),
            ("http://ada:secret@proxy.acme.test:0", "names no port"),
            ("http://ada:secret@proxy.acme.test:3128/path", "has a path"),
            ("http://ada:%ff@proxy.acme.test:3128", "not percent-encoded UTF-8"),
            ("http://ada:secret@.:3128", "names no host"),
            ("socks4://ada:secret@proxy.acme.test:1080", "no http://, https:// or socks5:// URL"),
            ("http://ada:se cret@proxy.acme.test:3128", "no http://, https:// or socks5:// URL"),
            ("", "no http://, https:// or socks5:// URL"),
        ] {
            let error = Proxy::parse("--upstream", text).err().unwrap_or_else(|| panic!("{text}")).to_string();
            assert!(error.starts_with("--upstream: ") && error.contains(problem) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn the_right_variable_is_heeded() {
        let proxies = from_env(&[("HTTPS_PROXY", "http://s:1"), ("https_proxy", "http://no:1"), ("http_proxy", "http://h:2")]).unwrap();
        assert_eq!((of(&proxies, "a.test:443").as_deref(), of(&proxies, "a.test:80").as_deref()), (Some("s:1"), Some("h:2")));
        assert_eq!(of(&proxies, "203.0.113.1:22").as_deref(), Some("s:1"));
        assert_eq!(proxies.to_string(), "s:1, h:2");
        let proxies = from_env(&[("all_proxy", "socks5://x:y@all:1"), ("HTTPS_PROXY", "")]).unwrap();
        assert_eq!(proxies.to_string(), "all:1");
        assert!(of(&proxies, "a.test:443").is_some() && of(&proxies, "a.test:80").is_some());
        assert!(from_env(&[("NO_PROXY", "*")]).unwrap().is_empty());
        let cgi = from_env(&[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil:1")]).unwrap();
        assert!(cgi.is_empty(), "a request's Proxy header is no setting");
        assert_eq!(from_env(&[("ALL_PROXY", "http://h")]).err().unwrap().setting, "ALL_PROXY");
    }

    #[test]
    fn what_goes_direct() {
        let proxies = from_env(&[("ALL_PROXY", "http://p:1"), ("no_proxy", "corp.test,acme.test:8443")]).unwrap();
        for direct in ["corp.test:443", "a.corp.test:22", "acme.test:8443"] {
            assert_eq!(of(&proxies, direct), None, "{direct}");
        }
        assert!(of(&proxies, "acme.test:443").is_some());
        assert!(proxies.look_up(&"acme.test".parse().unwrap()) && !proxies.look_up(&"a.corp.test".parse().unwrap()));
        let none = from_env(&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "*")]).unwrap();
        assert_eq!((of(&none, "acme.test:443"), of(&none, "203.0.113.1:443")), (None, None));
    }
}
