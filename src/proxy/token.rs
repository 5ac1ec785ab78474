//! Whether a connection to the explicit proxy comes from this run, where the system does not tell whose a socket is: by a token in the proxy's
//! URL, which clients repeat with each request (Basic, RFC 7617).
//!
//! Programs of the same user can read the command's environment and so the token. They are no boundary by the list of sockets either.

use std::{
    fs::File,
    io::{self, Read},
    net::SocketAddr,
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use nix::unistd::Uid;

use crate::secret::Secret;

const USER: &str = "run";

/// In octets: nobody guesses it while a run lasts.
const TOKEN_SIZE: usize = 16;

/// Who may have credentials injected: whoever shows the run's token.
pub struct Run {
    token: Secret<String>,
    /// The field's value without its scheme.
    credentials: Secret<String>,
}

impl Run {
    /// git and others show a token only when they are asked for one.
    pub const CHALLENGE: Option<&str> = Some("Basic realm=\"authsome\"");

    pub fn of_this_process(_: Uid) -> io::Result<Self> {
        let mut bytes = [0; TOKEN_SIZE];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let credentials = BASE64_STANDARD.encode(format!("{USER}:{token}"));
        Ok(Self { token: Secret::new(token), credentials: Secret::new(credentials) })
    }

    /// What the proxy's URL has before its host.
    pub fn user_info(&self) -> String {
        format!("{USER}:{}@", self.token.expose())
    }

    /// `shown`: the request's Proxy-Authorization.
    pub fn owns(&self, _client: SocketAddr, _proxy: SocketAddr, shown: Option<&HeaderValue>) -> bool {
        let Some((scheme, credentials)) = shown.and_then(|value| value.to_str().ok()?.split_once(' ')) else { return false };
        scheme.eq_ignore_ascii_case("Basic")
            && verify_slices_are_equal(credentials.trim_start().as_bytes(), self.credentials.expose().as_bytes()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_runs_token_opens() {
        let here = "127.0.0.1:1".parse().unwrap();
        let (run, other) = (Run::of_this_process(Uid::effective()).unwrap(), Run::of_this_process(Uid::effective()).unwrap());
        let shown = |run: &Run, scheme: &str| {
            let user_info = run.user_info();
            HeaderValue::from_str(&format!("{scheme} {}", BASE64_STANDARD.encode(user_info.trim_end_matches('@')))).unwrap()
        };
        let opens = |value: Option<HeaderValue>| run.owns(here, here, value.as_ref());
        assert!(opens(Some(shown(&run, "Basic"))));
        assert!(opens(Some(shown(&run, "basic"))), "RFC 9110 §11.1");
        assert!(!opens(Some(shown(&other, "Basic"))));
        assert!(!opens(Some(shown(&run, "Bearer"))));
        for wrong in ["", "Basic", "Basic ", "Basic cnVuOg=="] {
            assert!(!opens(HeaderValue::from_str(wrong).ok()), "{wrong}");
        }
        assert!(!opens(None));
        let asked = Run::CHALLENGE.and_then(|challenge| challenge.split(' ').next()).unwrap();
        assert!(opens(Some(shown(&run, asked))), "what clients are asked for opens");
    }
}
