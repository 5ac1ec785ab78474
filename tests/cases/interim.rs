//! What a server says before its final answer, in HTTP/1.1, reaches clients that wait for it.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{ACME_KEY, PLACEHOLDER, World, finish, show, succeeded},
    },
};

use std::process::Output;

pub const CASES: &[Case] = &[
    ("curl_sees_early_hints", curl_sees_early_hints),
    ("node_sees_early_hints", node_sees_early_hints),
    ("http_1_0_sees_none", http_1_0_sees_none),
];

const HOST: &str = "programs.acme.test";

/// Both hints are there before the server is let go on; the key that it echoes in them is not.
fn seen(ways: impl IntoIterator<Item = (&'static str, Output)>, opened: bool, hint: impl Fn(&str, &str) -> String) {
    for (way, output) in ways {
        let key = if opened && way != "outside" { "*".repeat(ACME_KEY.len()) } else { PLACEHOLDER.to_owned() };
        let wanted = format!("{}{}ok\n", hint("</a.css>; rel=preload", &key), hint("</b.js>; rel=preload", &key));
        assert_eq!(succeeded(&output), wanted, "{way}: {}", show(&output));
    }
}

fn curl_sees_early_hints(world: &World) {
    for (scheme, arguments) in [("https", &[][..]), ("http", &["plain"])] {
        let _origin = Origin::python(world, "early_hints.py", arguments);
        let url = format!("{scheme}://{HOST}");
        let client = format!(
            "mkfifo said
             curl -sSv --http1.1 -H \"x-api-key: $ACME_KEY\" {url}/hints -o answer 2> said & hints=0
             while read -r line; do
                 case $line in
                     '< HTTP/1.1 103'*) hints=$((hints + 1)); echo \"${{line#< }}\"; test $hints -lt 2 || curl -fsS {url}/go -o gone;;
                     '< '[Ll]ink*|'< '[Xx]-[Ee]cho*) echo \"$line\" | sed 's/^< //; s/^L/l/; s/^X-E/x-e/';;
                 esac
             done < said | tr -d '\\r'
             wait; rm said; cat answer"
        );
        let ways = world.every_way(&["sh", "-euc", &client]);
        seen(ways, scheme == "https", |link, key| format!("HTTP/1.1 103 Early Hints\nlink: {link}\nx-echo: {key}\n"));
    }
}

/// Its https heeds no proxy variables before Node 24.
fn node_sees_early_hints(world: &World) {
    let _origin = Origin::python(world, "early_hints.py", &[]);
    let client = ["node", "information.mjs", &format!("https://{HOST}")];
    seen([("outside", world.outside(&client)), ("transparent", world.inside(&client))], true, |link, key| format!("103 {link} {key}\n"));
}

/// RFC 9110 §15.2. This server sends them to everybody.
fn http_1_0_sees_none(world: &World) {
    for (scheme, arguments) in [("https", &[][..]), ("http", &["plain"])] {
        let _origin = Origin::python(world, "early_hints.py", arguments);
        let url = format!("{scheme}://{HOST}");
        let client = format!("curl -fsS {url}/go; curl -fsSi --suppress-connect-headers --http1.0 {url}/hints | head -n 1");
        let output = finish(&mut world.by_environment(&[], &["sh", "-euc", &client]));
        assert_eq!(succeeded(&output), "ok\nHTTP/1.0 200 OK\r\n", "{scheme}: {}", show(&output));
    }
}
