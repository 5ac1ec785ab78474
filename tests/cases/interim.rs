//! What a server says before its final answer, in HTTP/1.1, reaches clients that wait for it.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{ACME_KEY, PLACEHOLDER, World, show, succeeded},
    },
};

use std::process::Output;

pub const CASES: &[Case] = &[
    ("curl_sees_early_hints", curl_sees_early_hints),
    ("node_sees_early_hints", node_sees_early_hints),
    ("http_1_0_sees_none", http_1_0_sees_none),
];

const URL: &str = "https://programs.acme.test";

/// Both hints are there before the server is let go on; the key that it echoes in them is not.
fn seen(ways: impl IntoIterator<Item = (&'static str, Output)>, hint: impl Fn(&str, &str) -> String) {
    for (way, output) in ways {
        let key = if way == "outside" { PLACEHOLDER.to_owned() } else { "*".repeat(ACME_KEY.len()) };
        let wanted = format!("{}{}ok\n", hint("</a.css>; rel=preload", &key), hint("</b.js>; rel=preload", &key));
        assert_eq!(succeeded(&output), wanted, "{way}: {}", show(&output));
    }
}

fn curl_sees_early_hints(world: &World) {
    let client = format!(
        "mkfifo said
         curl -sSv --http1.1 -H \"x-api-key: $ACME_KEY\" {URL}/hints -o answer 2> said & hints=0
         while read -r line; do
             case $line in
                 '< HTTP/1.1 103'*) hints=$((hints + 1)); echo \"${{line#< }}\"; test $hints -lt 2 || curl -fsS {URL}/go -o gone;;
                 '< '[Ll]ink*|'< '[Xx]-[Ee]cho*) echo \"$line\" | sed 's/^< //; s/^L/l/; s/^X-E/x-e/';;
             esac
         done < said | tr -d '\\r'
         wait; rm said; cat answer"
    );
    let _origin = Origin::python(world, "early_hints.py", &[]);
    seen(world.every_way(&["sh", "-euc", &client]), |link, key| format!("HTTP/1.1 103 Early Hints\nlink: {link}\nx-echo: {key}\n"));
}

/// Its https heeds no proxy variables before Node 24.
fn node_sees_early_hints(world: &World) {
    let _origin = Origin::python(world, "early_hints.py", &[]);
    let client = ["node", "information.mjs", URL];
    seen([("outside", world.outside(&client)), ("transparent", world.inside(&client))], |link, key| format!("103 {link} {key}\n"));
}

fn http_1_0_sees_none(world: &World) {
    let _origin = Origin::python(world, "early_hints.py", &[]);
    let client = format!("curl -fsS {URL}/go; curl -fsSi --http1.0 {URL}/hints | head -n 1");
    assert_eq!(succeeded(&world.inside(&["sh", "-euc", &client])), "ok\nHTTP/1.0 200 OK\r\n");
}
