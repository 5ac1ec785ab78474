//! gRPC through an opened connection: all four kinds of call, deadlines and error status, by two implementations against grpcio's server.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{ACME_KEY, PLACEHOLDER, World, succeeded},
    },
};

pub const CASES: &[Case] = &[("grpcio", grpcio), ("grpc_js", grpc_js)];

const HOST: &str = "programs.acme.test";

fn grpcio(world: &World) {
    calls(
        world,
        &["/usr/bin/python3", "grpc_calls.py", HOST],
        &[
            "unary (b'olleh', 'first', 'last', True, 'OK')",
            "large True",
            "client_stream b'a++c'",
            "server_stream ([b'n0', b'n1', b'no deadline'], [b'd0', b'd1', b'in time'])",
            "both_stream ([b'PING 0', b'PING 1', b'PING 2', b'PING 3', b'PING 4'], [], 'OK')",
            "fails FAILED_PRECONDITION 'half-way: 100 % naïve' {'x-why': 'because'}",
            "fails_midway ([b'one'], \"DATA_LOSS 'midway' {}\")",
            "unknown UNIMPLEMENTED 'Method not found!' {}",
            "deadline DEADLINE_EXCEEDED",
        ],
    );
}

fn grpc_js(world: &World) {
    calls(
        world,
        &["node", "grpc_calls.cjs", &world.npm_modules(), HOST],
        &[
            "unary {\"answer\":\"olleh\",\"initial\":[\"first\"],\"trailing\":[\"last\"]}",
            "client_stream \"a++c\"",
            "server_stream [\"n0\",\"n1\",\"in time\"]",
            "both_stream [\"PING 0\",\"PING 1\",\"PING 2\",\"PING 3\",\"PING 4\"]",
            "fails {\"answer\":\"FAILED_PRECONDITION half-way: 100 % naïve\",\"initial\":[],\"trailing\":[\"because\"]}",
            "fails_midway [\"one\",\"DATA_LOSS midway\"]",
            "deadline {\"answer\":\"DEADLINE_EXCEEDED\",\"initial\":[],\"trailing\":[]}",
        ],
    );
}

/// The client says the same on every way, and only with the command do the calls carry the key.
fn calls(world: &World, client: &[&str], expected: &[&str]) {
    let origin = Origin::python(world, "grpc_echo.py", &[]);
    for (way, output) in world.every_way(client) {
        let said = succeeded(&output);
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{way}");
        // The last call is one that the server sees end only when its cancellation has come through.
        let seen = origin.said_until("never cancelled");
        let key = if way == "outside" { PLACEHOLDER } else { ACME_KEY };
        let calls: Vec<_> = seen.iter().filter(|line| !["ready", "never cancelled"].contains(&line.as_str())).collect();
        assert!(calls.len() >= 7 && calls.iter().all(|line| line.ends_with(&format!(" {key}"))), "{way}: {seen:?}");
    }
}
