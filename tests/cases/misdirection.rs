//! A key goes to its provider and nowhere else: every shape by which a client might have it sent to another, in both modes.

use crate::{
    Case,
    support::world::{OPENAI_KEY, World, finish, show},
};

pub const CASES: &[Case] = &[
    ("no_shape_sends_the_key_elsewhere", no_shape_sends_the_key_elsewhere),
    ("a_redirect_does_not_take_the_key_along", a_redirect_does_not_take_the_key_along),
];

const API: &str = "api.openai.com";

/// Started in the mode that `transparent` says.
fn run(world: &World, transparent: bool, client: &[&str]) -> std::process::Output {
    if transparent {
        return world.inside(client);
    }
    let mut command = world.command(&["timeout", "--foreground", "-k", "5", "60"]);
    command.arg(world.path("authsome")).args(["run", "--upstream-ca"]).arg(world.path("root.pem")).arg("--").args(client);
    finish(&mut world.start_as_mode(command))
}

/// What the origins saw of the key: in requests for the API alone, and in no byte that came for another name. Whether it was seen at all.
fn goes_to_the_api_alone(world: &World, said: &str) -> usize {
    let (bytes, requests) = (world.internet.take_bytes(), world.internet.take_requests());
    let mut by_name = std::collections::HashMap::<String, Vec<u8>>::new();
    bytes.into_iter().for_each(|(sni, bytes)| by_name.entry(sni).or_default().extend(bytes));
    for (sni, bytes) in &by_name {
        let found = bytes.windows(OPENAI_KEY.len()).any(|window| window == OPENAI_KEY.as_bytes());
        assert!(!found || sni == API, "the key came in a connection for `{sni}`: {}\n{said}", String::from_utf8_lossy(bytes));
    }
    let with_key = |request: &&crate::support::internet::Request| format!("{request:?}").contains(OPENAI_KEY);
    let keyed: Vec<_> = requests.iter().filter(with_key).collect();
    for request in &keyed {
        let authority = request.authority.to_lowercase();
        assert_eq!((request.sni.as_str(), authority.trim_end_matches('.')), (API, API), "{request:?}\n{said}");
        let values = request.headers.iter().filter(|(name, _)| name == "authorization").count();
        assert_eq!(values, 1, "{request:?}");
    }
    keyed.len()
}

fn no_shape_sends_the_key_elsewhere(world: &World) {
    for transparent in [true, false] {
        let output = run(world, transparent, &["/usr/bin/python3", "shapes.py"]);
        let said = show(&output);
        assert!(output.status.success(), "{said}");
        let line =
            |name: &str| said.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_else(|| panic!("{name}: {said}"));
        for refused in ["Host of another", "absolute form", "absolute form, Host of another"] {
            assert_eq!(line(refused), "HTTP/1.1 421 Misdirected Request", "{said}");
        }
        for refused in ["two Hosts", "two Hosts, other order", "userinfo", "userinfo of another", "CONNECT inside"] {
            assert!(line(refused).starts_with("HTTP/1.1 400 "), "{refused}: {said}");
        }
        assert_eq!(line("h2, another authority"), "421", "{said}");
        let mut reused: Vec<_> = line("h2, reused for another").split(' ').collect();
        reused.sort_unstable();
        assert_eq!(reused, ["200", "421", "421"], "{said}");
        // Each is answered with an error, or its stream is reset.
        for refused in [
            "Host of another",
            "Host alone, of another",
            "two Hosts",
            "two authorities",
            "two authorities, other order",
            "authority after a field",
            "no authority",
            "empty authority, Host of another",
            "another port",
            "userinfo of another",
            "absolute path",
            "path that is an authority",
            "plain scheme",
            "odd scheme",
            "CONNECT",
            "extended CONNECT",
            "line break in the authority",
            "line break in a value",
            "hop-by-hop fields",
            "look-alike",
        ] {
            assert!(!line(&format!("h2, {refused}")).contains("200"), "{refused}: {said}");
        }
        for good in ["plainly", "port", "trailing dot", "upper case", "Host alone"] {
            assert_eq!(line(&format!("h2, {good}")), "200", "{said}");
        }
        for good in ["trailing dot", "upper case", "plainly"] {
            assert!(line(good).starts_with("HTTP/1.1 200"), "{good}: {said}");
        }
        assert!(goes_to_the_api_alone(world, &said) >= 3, "{said}");
    }
}

/// curl is told to send what it has to every host.
fn a_redirect_does_not_take_the_key_along(world: &World) {
    for transparent in [true, false] {
        for version in ["--http1.1", "--http2"] {
            let client = [
                "sh",
                "-c",
                &format!("curl -sSkL {version} --location-trusted -H \"Authorization: Bearer $OPENAI_API_KEY\" https://{API}/redirect"),
            ];
            let output = run(world, transparent, &client);
            let said = show(&output);
            assert!(output.status.success() && said.contains("bytes for other.test"), "it was followed: {said}");
            assert_eq!(goes_to_the_api_alone(world, &said), 1, "{said}");
        }
    }
}
