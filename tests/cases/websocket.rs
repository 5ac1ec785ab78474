//! WebSocket through an opened connection, over HTTP/1.1 and over HTTP/2 (RFC 8441), and left alone where it is not ours.

use crate::{
    Case,
    support::{
        origin::{Origin, python_modules},
        world::{ACME_KEY, PLACEHOLDER, World, succeeded},
    },
};
use std::process::Output;

pub const CASES: &[Case] = &[("conformance", conformance), ("conformance_over_http2", conformance_over_http2), ("python", python)];

const HOST: &str = "programs.acme.test";

fn conformance(world: &World) {
    conforms(world, &[], PLACEHOLDER, World::outside);
    conforms(world, &[], ACME_KEY, World::inside);
}

/// The origin speaks HTTP/1.1 alone, so this has no counterpart outside.
fn conformance_over_http2(world: &World) {
    conforms(world, &["h2"], ACME_KEY, World::inside);
}

/// Autobahn's cases judge a client by what the server sees of it: through the command it is as good as without.
fn conforms(world: &World, over: &[&str], key: &str, way: fn(&World, &[&str]) -> Output) {
    let origin = Origin::python(world, "ws_conformance.py", &[&python_modules()]);
    succeeded(&way(world, &[&["node", "ws_conformance.cjs", &world.npm_modules(), HOST], over].concat()));
    assert_eq!(origin.said_until("verdict"), [format!("verdict 247 of 247, key {key}")]);
}

fn python(world: &World) {
    let origin = Origin::python(world, "ws_echo.py", &[]);
    for scheme in ["wss", "ws"] {
        let client = ["/usr/bin/python3", "ws_echo.py", &format!("{scheme}://{HOST}/")];
        for (inside, output) in [(false, world.outside(&client)), (true, world.inside(&client))] {
            assert_eq!(succeeded(&output), "grüße\nTrue\n4001 enough\n");
            // What is not encrypted is never injected.
            let key = if inside && scheme == "wss" { ACME_KEY } else { PLACEHOLDER };
            let said = origin.said_until("closed");
            assert!(said[0].starts_with(&format!("key {key} ")) && said[0].contains("PerMessageDeflate"), "{scheme} {inside}: {said:?}");
            assert!(said[1].contains("4001") && said[1].ends_with("enough"), "{scheme} {inside}: {said:?}");
        }
    }
}
