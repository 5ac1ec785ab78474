//! Clients that do not take the run's certificate are told apart from those whose handshake fails for other reasons, and helped.

use crate::{
    Case,
    support::world::{World, show, succeeded},
};
use std::{fs, process::Output};

pub const CASES: &[Case] = &[
    ("a_rejection_is_named_once_with_a_remedy", a_rejection_is_named_once_with_a_remedy),
    ("passthrough_leaves_a_pinned_client_alone", passthrough_leaves_a_pinned_client_alone),
    ("other_failures_are_not_taken_for_a_rejection", other_failures_are_not_taken_for_a_rejection),
    ("every_new_host_is_explained", every_new_host_is_explained),
];

const REJECTED: &str = "api.openai.com: the client rejected authsome's certificate (pinned or own trust store)";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What was recorded since the last call.
fn recorded(world: &World) -> String {
    let path = world.home().join(".authsome/log/audit.jsonl");
    let trail = fs::read_to_string(&path).unwrap_or_default();
    fs::remove_file(path).unwrap();
    trail
}

/// Twice each: with TLS 1.3 the alert is encrypted, with 1.2 it is not; Node looks at the certificate only after the handshake.
fn a_rejection_is_named_once_with_a_remedy(world: &World) {
    let url = "https://api.openai.com/";
    let root = world.path("root.pem").display().to_string();
    let node = |more: &str| format!("env -u NODE_EXTRA_CA_CERTS node {more} fetch.mjs {url}");
    let clients = [
        (format!("curl -sS --capath / --cacert {root} {url}"), "$SSL_CERT_FILE"),
        (format!("curl -sS --tls-max 1.2 --capath / --cacert {root} {url}"), "$SSL_CERT_FILE"),
        (node(""), "NODE_EXTRA_CA_CERTS"),
        (node("--tls-max-v1.2"), "NODE_EXTRA_CA_CERTS"),
    ];
    for (client, remedy) in clients {
        // A runtime is known by its process, so that one has to be there still.
        let keep = if remedy == "NODE_EXTRA_CA_CERTS" { "node -e 'setInterval(() => 0, 1000)' & " } else { "" };
        let output = world.inside(&["sh", "-c", &format!("exec 2>&1; {keep} {client}; {client}; kill $! 2>/dev/null; true")]);
        let said = said(&output);
        assert_eq!(said.matches(REJECTED).count(), 1, "{client}: {}", show(&output));
        assert!(said.contains("--passthrough api.openai.com"), "{client}: {said}");
        assert!(said.contains(remedy) || said.contains("curl takes roots from CURL_CA_BUNDLE"), "{client}: {said}");
        let trail = recorded(world);
        assert!(trail.contains("rejected authsome's certificate"), "{client}: {trail}");
        assert!(world.internet.take_requests().is_empty(), "{client}");
    }
}

fn passthrough_leaves_a_pinned_client_alone(world: &World) {
    let root = world.path("root.pem").display().to_string();
    let client = ["curl", "-fsS", "--capath", "/", "--cacert", &root, "https://api.openai.com/"];
    succeeded(&world.run(&["--passthrough", "api.openai.com"], &client));
    assert_eq!(world.internet.take_requests()[0].header("authorization"), None, "nothing is injected there");
    fs::write(world.home().join(".authsome/config.toml"), "[run]\npassthrough = [\"api.openai.com\"]\n").unwrap();
    succeeded(&world.inside(&client));
    assert_eq!(world.internet.take_requests().len(), 1);
}

fn other_failures_are_not_taken_for_a_rejection(world: &World) {
    let s_client = "openssl s_client -connect api.openai.com:443 -servername api.openai.com";
    for (client, reason) in [
        // No cipher suite of ours.
        (format!("{s_client} -tls1_2 -cipher AES128-SHA256 </dev/null"), "TLS handshake with the client"),
        // Older than what is opened.
        (format!("{s_client} -tls1_1 -cipher DEFAULT@SECLEVEL=0 </dev/null"), "older than 1.2"),
        // Gone before there was a certificate.
        ("python3 odd.py gone api.openai.com".to_owned(), "gave up before the TLS handshake"),
    ] {
        // The end of the run would be the end of a connection that is still being set up; the second client's ends after it.
        let output = world.inside(&["sh", "-c", &format!("{client} 2>&1; curl -fsS https://api.acme.test/")]);
        assert!(!said(&output).contains(REJECTED), "{client}: {}", show(&output));
        let trail = recorded(world);
        assert!(trail.contains(reason), "{client}: {trail}\n{}", show(&output));
    }
}

fn every_new_host_is_explained(world: &World) {
    let script = "for i in 1 2; do curl -fsSk https://api.openai.com/ https://other.test/ || exit 1; done";
    let output = world.run(&["-v"], &["sh", "-c", script]);
    succeeded(&output);
    for line in ["authsome: api.openai.com: injected as openai\n", "authsome: other.test: no connected provider; forwarded unchanged\n"] {
        assert_eq!(said(&output).matches(line).count(), 1, "{line}: {}", show(&output));
    }
    assert!(!said(&world.inside(&["sh", "-c", script])).contains("injected as"));
}
