//! The accept loop when the process has no descriptor left. A file of its own, since the limit is the whole process's.

#![cfg(target_os = "linux")]
// A test's failure is a panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/proxy.rs"]
#[allow(dead_code)]
mod support;

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
};

use support::{Ca, Proxy};

/// Passes each log line on.
struct Lines(mpsc::Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_descriptors_ends_nothing() {
    let (lines, logged) = mpsc::channel();
    tracing_subscriber::fmt().with_writer(move || Lines(lines.clone())).init();
    let proxy = Proxy::before("203.0.113.7:443".parse().unwrap(), &Ca::new()).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(authsome::proxy::serve(vec![listener], proxy.context.clone()));
    // A first connection shows that the loop runs, and opens what it opens once.
    expect_reset(socket(), addr);

    let socket = socket();
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(limit).unwrap();
    nix::sys::resource::setrlimit(limit, 64, hard).unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    let client = std::thread::spawn(move || expect_reset(socket, addr));
    let accept_failed =
        tokio::task::spawn_blocking(move || logged.iter().find(|line| line.contains("accept") && line.contains("os error 24")));
    assert!(accept_failed.await.unwrap().is_some());
    drop(hoard);
    client.join().unwrap();
}

fn socket() -> socket2::Socket {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap()
}

/// Nothing was redirected here, so a connection that is accepted is reset.
fn expect_reset(socket: socket2::Socket, addr: SocketAddr) {
    socket.connect(&addr.into()).unwrap();
    assert_eq!(TcpStream::from(socket).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
