//! Origins that speak no HTTP.

use std::net;
use tokio::{
    io::{AsyncWriteExt, copy},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// What the server that speaks first says.
const BANNER: &[u8] = b"220 raw.test ready\r\n";

/// Serves each connection of `listener` with `serve`, for as long as the runtime lives.
pub fn each<F: Future<Output = ()> + Send + 'static>(listener: net::TcpListener, serve: impl Fn(TcpStream) -> F + Send + 'static) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
}

pub fn echo(listener: net::TcpListener) {
    each(listener, |mut stream| async move {
        let (mut reader, mut writer) = stream.split();
        let _ = copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    });
}

pub fn banner(listener: net::TcpListener) {
    each(listener, |mut stream| async move {
        let _ = stream.write_all(BANNER).await;
        let (mut reader, mut writer) = stream.split();
        let _ = copy(&mut reader, &mut writer).await;
    });
}

pub fn udp_echo(socket: net::UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    let socket = UdpSocket::from_std(socket).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], peer).await;
        }
    });
}
