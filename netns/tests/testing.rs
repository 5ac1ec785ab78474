//! Two machines on a wire, and what is seen to cross it.
#![cfg(feature = "testing")]
// Helpers of tests may panic as the tests themselves do.
#![allow(clippy::unwrap_used)]

mod wire;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
};

use netns::testing::TestingError;
use wire::machines;

#[test]
fn machines_reach_each_other_over_both_families_and_are_seen_to() {
    let Some((_lan, server, client)) = machines() else { return };
    for address in ["203.0.113.7:8080", "[2001:db8:113::7]:8080"] {
        let listener = server.run(|| TcpListener::bind(address).unwrap()).unwrap();
        let capture = client.capture().unwrap();
        let mut there = client.run(|| TcpStream::connect(address).unwrap()).unwrap();
        let (mut here, _) = listener.accept().unwrap();
        there.write_all(b"crossed the wire").unwrap();
        drop(there);
        let mut text = String::new();
        here.read_to_string(&mut text).unwrap();
        assert_eq!(text, "crossed the wire");
        let frames = capture.finish().unwrap();
        assert!(frames.iter().any(|frame| frame.tcp_to(8080) && frame.payload == b"crossed the wire"), "{frames:?}");
        assert!(!frames.iter().any(|frame| frame.udp_to(53)), "{frames:?}");
    }
}

#[test]
fn what_is_sent_to_dns_is_seen() {
    let Some((_lan, server, client)) = machines() else { return };
    let resolver = server.run(|| UdpSocket::bind("203.0.113.7:53").unwrap()).unwrap();
    let capture = client.capture().unwrap();
    let socket = client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.send_to(b"a name", "203.0.113.7:53").unwrap();
    resolver.recv(&mut [0; 16]).unwrap();
    assert!(capture.finish().unwrap().iter().any(|frame| frame.udp_to(53) && frame.payload == b"a name"));
}

#[test]
fn wrong_addresses_are_named() {
    let Some((lan, ..)) = machines() else { return };
    for address in ["203.0.113.7", "203.0.113.x/24", "203.0.113.7/x"] {
        assert!(matches!(lan.host("wrong", &[address]), Err(TestingError::Address(_))), "{address}");
    }
}
