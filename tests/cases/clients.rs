//! Clients that know nothing of a proxy reach the provider with the user's key, and without the command they do not.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{OPENAI_KEY, PLACEHOLDER, World, finish, show, succeeded},
    },
};
use std::process::Stdio;

pub const CASES: &[Case] = &[
    ("curl_http1_v4", |world| injects(world, "HTTP/1.1", "curl -fsS -4 --http1.1 -H \"authorization: Bearer $OPENAI_API_KEY\" URL")),
    ("curl_http1_v6", |world| injects(world, "HTTP/1.1", "curl -fsS -6 --http1.1 -H \"authorization: Bearer $OPENAI_API_KEY\" URL")),
    ("curl_http2_v4", |world| injects(world, "HTTP/2.0", "curl -fsS -4 --http2 -H \"authorization: Bearer $OPENAI_API_KEY\" URL")),
    ("curl_http2_v6", |world| injects(world, "HTTP/2.0", "curl -fsS -6 --http2 -H \"authorization: Bearer $OPENAI_API_KEY\" URL")),
    ("curl_that_sends_no_header", |world| injects(world, "HTTP/2.0", "curl -fsS URL")),
    ("wget", |world| injects(world, "", "wget -qO- --header \"authorization: Bearer $OPENAI_API_KEY\" URL")),
    ("python_urllib", |world| injects(world, "", "/usr/bin/python3 with_urllib.py URL")),
    ("python_requests", |world| injects(world, "", "/usr/bin/python3 with_requests.py URL")),
    ("python_httpx", |world| injects(world, "", "/usr/bin/python3 with_httpx.py URL")),
    ("python_httpx_http2", |world| injects(world, "HTTP/2.0", "/usr/bin/python3 with_httpx.py URL http2")),
    ("node_fetch", |world| injects(world, "", "node fetch.mjs URL")),
    ("java_http_client", |world| injects(world, "", "java -XX:TieredStopAtLevel=1 Client.java URL")),
    ("git", git),
    ("openssl_s_client", openssl_s_client),
    ("upstream_roots_from_the_environment", upstream_roots_from_the_environment),
    ("environment_holds_a_placeholder", environment_holds_a_placeholder),
    ("proxy_variables_are_removed", proxy_variables_are_removed),
    ("plain_http_is_not_injected", plain_http_is_not_injected),
    ("ten_requests_at_once", ten_requests_at_once),
    ("one_that_gives_up_is_noticed", one_that_gives_up_is_noticed),
];

const URL: &str = "https://api.openai.com/v1/models?limit=2";

/// `version` is what the origin must have seen; empty where the client's choice does not matter.
fn injects(world: &World, version: &str, client: &str) {
    let client = ["sh", "-c", &format!("exec {}", client.replace("URL", &format!("'{URL}'")))];
    let output = world.inside(&client);
    let requests = world.internet.take_requests();
    assert!(output.status.success(), "{}", show(&output));
    let [request] = &requests[..] else { panic!("one request expected: {requests:?}") };
    assert_eq!(request.header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()), "{request:?}");
    assert_eq!((request.path.as_str(), request.authority.as_str()), ("/v1/models?limit=2", "api.openai.com"));
    assert!(version.is_empty() || request.version == version, "{request:?}");

    succeeded(&world.outside(&client));
    let requests = world.internet.take_requests();
    assert_eq!(requests.len(), 1);
    assert!(!format!("{requests:?}").contains(OPENAI_KEY), "the control saw the key: {requests:?}");
}

/// Nothing but the first request of git's is served, which is the one that matters.
fn git(world: &World) {
    let client = ["git", "-c", "http.extraHeader=authorization: Bearer x", "ls-remote", "https://api.openai.com/repository.git"];
    let output = world.inside(&client);
    let requests = world.internet.take_requests();
    assert!(!requests.is_empty(), "{}", show(&output));
    assert_eq!(requests[0].header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()), "{}", show(&output));
    world.outside(&client);
    assert_eq!(world.internet.take_requests()[0].header("authorization"), Some("Bearer x"));
}

fn openssl_s_client(world: &World) {
    let request = "printf 'GET /v1 HTTP/1.1\\r\\nhost: api.openai.com\\r\\nconnection: close\\r\\n\\r\\n'";
    let client = [
        "sh",
        "-c",
        &format!(
            "{request} | openssl s_client -quiet -ign_eof -verify_return_error -connect api.openai.com:443 -servername api.openai.com"
        ),
    ];
    let output = world.inside(&client);
    assert!(succeeded(&output).starts_with("HTTP/1.1 200"), "{}", show(&output));
    assert_eq!(world.internet.take_requests()[0].header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));
    world.outside(&client);
    assert_eq!(world.internet.take_requests()[0].header("authorization"), None);
}

/// Without `--upstream-ca`: the user's own SSL_CERT_FILE names the roots.
fn upstream_roots_from_the_environment(world: &World) {
    let mut command = world.command(&["timeout", "--foreground", "60", world.path("authsome").to_str().unwrap()]);
    command.env("SSL_CERT_FILE", world.path("root.pem")).args(["run", "--transparent", "--", "curl", "-fsS", URL]);
    succeeded(&finish(&mut world.start_as_mode(command)));
    assert_eq!(world.internet.take_requests()[0].header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));
}

fn environment_holds_a_placeholder(world: &World) {
    let environment = succeeded(&world.inside(&["env"]));
    let variable = |name: &str| environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert_eq!(variable("OPENAI_API_KEY"), Some(PLACEHOLDER));
    assert_eq!(variable("ACME_KEY"), Some(PLACEHOLDER));
    assert_eq!(variable("AUTHSOME_PROXY_MODE"), Some("true"));
    assert!(variable("AUTHSOME_RUN_ID").is_some_and(|id| !id.is_empty()));
    assert!(!environment.contains(OPENAI_KEY));
}

fn proxy_variables_are_removed(world: &World) {
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let mut command = world.authsome(&["--upstream", "none"], &["env"]);
    command.envs(names.map(|name| (name, "http://203.0.113.99:3128")));
    let environment = succeeded(&finish(&mut command));
    assert!(!environment.to_lowercase().contains("203.0.113.99"), "{environment}");
}

fn plain_http_is_not_injected(world: &World) {
    succeeded(&world.inside(&["curl", "-fsS", "http://api.openai.com/v1"]));
    let [request] = &world.internet.take_requests()[..] else { panic!("one request expected") };
    assert_eq!((request.sni.as_str(), request.header("authorization")), ("", None));
}

fn ten_requests_at_once(world: &World) {
    let urls: Vec<String> = (0..10).map(|n| format!("https://api.openai.com/v1/{n}")).collect();
    let mut client = vec!["curl", "-fsS", "--parallel"];
    client.extend(urls.iter().map(String::as_str));
    succeeded(&world.inside(&client));
    let requests = world.internet.take_requests();
    let with_key = requests.iter().filter(|request| request.header("authorization").is_some_and(|value| value.ends_with(OPENAI_KEY)));
    assert_eq!(with_key.count(), 10, "{requests:?}");
}

/// By the server, while the run goes on: curl closes with a close_notify, Python without.
fn one_that_gives_up_is_noticed(world: &World) {
    let origin = Origin::python(world, "silent.py", &[]);
    let curl = "curl -4 -sS --http1.1 -m 1 https://programs.acme.test/";
    let python = "/usr/bin/python3 -c 'import requests; requests.get(\"https://programs.acme.test/\", timeout=1)'";
    for client in [curl, python] {
        let client = ["sh", "-c", &format!("{client}; read rest")];
        for mut run in [world.authsome(&[], &client), world.by_environment(&[], &client)] {
            let mut run = run.stdin(Stdio::piped()).spawn().unwrap();
            assert_eq!(origin.said_until("left"), ["asked", "left"]);
            drop(run.stdin.take());
            run.wait().unwrap();
        }
    }
}
