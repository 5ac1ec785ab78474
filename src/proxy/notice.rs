//! What the user is told on stderr while connections run, at most once per host.

use std::{
    collections::HashSet,
    io::Write,
    sync::{Mutex, PoisonError},
};

use crate::{host::Host, route::Forward};

/// Hosts remembered. A child that makes up names could fill memory or the terminal; after this many nothing new is said.
const MAX_SAID: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Injected,
    Forwarded,
    Ambiguous,
    Rejected,
    Handshake,
    Placeholder,
    Upstream,
    Denied,
}

/// Says each thing once per host, if the verbosity lets it.
pub struct Notices {
    verbosity: u8,
    said: Mutex<HashSet<(Topic, Host)>>,
    sink: Box<dyn Fn(&str) + Send + Sync>,
}

impl Notices {
    /// On stderr. `verbosity`: `-q` 0, default 1, `-v` 2, `-vv` 3.
    pub fn stderr(verbosity: u8) -> Self {
        // A closed stderr is no reason to stop serving.
        Self::new(verbosity, |line| drop(writeln!(std::io::stderr(), "authsome: {line}")))
    }

    /// To `sink`, one line per call, without its end.
    pub fn new(verbosity: u8, sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { verbosity, said: Mutex::default(), sink: Box::new(sink) }
    }

    /// A connection or request goes on unchanged.
    pub fn forwarded(&self, host: &Host, why: &Forward) {
        match why {
            Forward::Ambiguous(a, b) => self.say(1, Topic::Ambiguous, host, || {
                format!(
                    "ambiguous host match: {host} claimed by {a} and {b}; not injected (hint: `authsome logout` one of them, or tighten its api_url)"
                )
            }),
            Forward::NoProvider | Forward::NoPath | Forward::Passthrough | Forward::OAuthEndpoint => {
                self.say(2, Topic::Forwarded, host, || format!("{host}: {}", reason(why)));
            }
        }
    }

    /// The first request to a host got a credential.
    pub fn injected(&self, host: &Host, provider: &str) {
        self.say(2, Topic::Injected, host, || format!("{host}: injected as {provider}"));
    }

    /// `remedies` says what is known of the run's programs; it is called at most once per host and may block.
    pub fn rejected(&self, host: &Host, remedies: impl FnOnce() -> Vec<&'static str>) {
        self.say(1, Topic::Rejected, host, || {
            let mut remedies = remedies().join("; ");
            if remedies.is_empty() {
                remedies.push_str("point its trust variable at $SSL_CERT_FILE");
            }
            format!(
                "{host}: the client rejected authsome's certificate (pinned or own trust store) \
                 (hint: {remedies}; or run with --passthrough {host}, or use `authsome export`)"
            )
        });
    }

    /// A handshake failed, and not over the certificate.
    pub fn handshake(&self, host: &Host, error: &str) {
        self.say(1, Topic::Handshake, host, || {
            format!("{host}: {error}; this is not about the certificate (hint: --passthrough {host} leaves its TLS alone)")
        });
    }

    pub fn placeholder(&self, host: &Host) {
        self.say(1, Topic::Placeholder, host, || format!("placeholder sent to {host}: no connected provider claims it"));
    }

    /// A rule of the user's forbids it, or none allows it.
    pub fn denied(&self, host: &Host, reason: &str) {
        self.say(1, Topic::Denied, host, || format!("{host}: {reason}"));
    }

    /// The upstream's certificate does not verify, or the like.
    pub fn upstream(&self, host: &Host, error: &str, hint: &str) {
        self.say(1, Topic::Upstream, host, || if hint.is_empty() { error.to_owned() } else { format!("{error} (hint: {hint})") });
    }

    fn say(&self, verbosity: u8, topic: Topic, host: &Host, line: impl FnOnce() -> String) {
        if self.verbosity < verbosity {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < MAX_SAID && said.insert((topic, host.clone())) {
            drop(said);
            (self.sink)(&line());
        }
    }
}

/// Why something goes on unchanged, as notices and the audit say it.
pub fn reason(why: &Forward) -> String {
    match why {
        Forward::NoProvider => "no connected provider; forwarded unchanged".to_owned(),
        Forward::Ambiguous(a, b) => format!("ambiguous host match: claimed by {a} and {b}; not injected"),
        Forward::NoPath => "no connected provider claims this path; forwarded unchanged".to_owned(),
        Forward::Passthrough => "passed through as asked".to_owned(),
        Forward::OAuthEndpoint => "the provider's own OAuth endpoint; forwarded unchanged".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn said(verbosity: u8, speak: impl Fn(&Notices)) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        speak(&Notices::new(verbosity, move |line| sink.lock().unwrap().push(line.to_owned())));
        lines.lock().unwrap().clone()
    }

    #[test]
    fn once_per_host_and_topic() {
        let (a, b) = ("a.acme.test".parse().unwrap(), "b.acme.test".parse().unwrap());
        let lines = said(2, |notices| {
            for host in [&a, &a, &b] {
                notices.forwarded(host, &Forward::NoProvider);
                notices.placeholder(host);
            }
        });
        assert_eq!(
            lines,
            [
                "a.acme.test: no connected provider; forwarded unchanged",
                "placeholder sent to a.acme.test: no connected provider claims it",
                "b.acme.test: no connected provider; forwarded unchanged",
                "placeholder sent to b.acme.test: no connected provider claims it",
            ]
        );
    }

    #[test]
    fn verbosity_rules() {
        let host = "a.acme.test".parse().unwrap();
        let speak = |notices: &Notices| {
            notices.forwarded(&host, &Forward::NoProvider);
            notices.rejected(&host, Vec::new);
        };
        assert_eq!([said(0, speak).len(), said(1, speak).len(), said(2, speak).len()], [0, 1, 2]);
    }

    #[test]
    fn a_flood_of_names_ends() {
        let lines = said(2, |notices| {
            for i in 0..MAX_SAID + 10 {
                notices.placeholder(&format!("h{i}.acme.test").parse().unwrap());
            }
        });
        assert_eq!(lines.len(), MAX_SAID);
    }
}
