//! One question to the user's resolvers.

use super::{
    Transport, Upstreams,
    message::{Answer, Query, Unusable, answers},
};
use hickory_proto::op::{Message, ResponseCode};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// The first good answer of the user's resolvers, as it came; else the last bad one; None if there was none at all.
pub(super) async fn resolve(query: &Query, upstreams: &Upstreams, transport: Transport) -> Option<Vec<u8>> {
    let conf = upstreams.current();
    let first = upstreams.first(&conf);
    let mut bad = None;
    for _ in 0..conf.attempts {
        for nth in 0..conf.servers.len() {
            let server = conf.servers[(first + nth) % conf.servers.len()];
            match timeout(conf.timeout, ask(server, query, transport)).await {
                Ok(Ok((bytes, answer))) if is_final(answer.code) => return Some(bytes),
                Ok(Ok((bytes, _))) => bad = Some(bytes),
                Ok(Err(error)) => tracing::debug!(%server, %error, "resolver"),
                Err(_) => tracing::debug!(%server, "resolver: no answer"),
            }
        }
        if bad.is_some() {
            break;
        }
    }
    bad
}

/// Other servers may do better than these (as the C library has it).
fn is_final(code: ResponseCode) -> bool {
    !matches!(code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)
}

/// Over UDP first; over TCP when the answer did not fit and the child can take a longer one.
async fn ask(server: SocketAddr, query: &Query, transport: Transport) -> io::Result<(Vec<u8>, Answer)> {
    let outgoing = query.outgoing();
    let bytes = outgoing.to_vec().map_err(io::Error::other)?;
    let answer = ask_udp(server, &bytes, &outgoing).await?;
    if answer.1.truncated && transport == Transport::Tcp {
        return ask_tcp(server, &bytes, &outgoing).await;
    }
    Ok(answer)
}

/// From a port of its own for each question, which with the random id is what an off-path forger has to guess (RFC 5452 §9).
async fn ask_udp(server: SocketAddr, query: &[u8], outgoing: &Message) -> io::Result<(Vec<u8>, Answer)> {
    let any: IpAddr = if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = answers(&buffer[..length], outgoing).map_err(io::Error::other)? {
            buffer.truncate(length);
            return Ok((buffer, answer));
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8], outgoing: &Message) -> io::Result<(Vec<u8>, Answer)> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, query).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = answers(&buffer, outgoing).map_err(io::Error::other)?.ok_or_else(|| io::Error::other(Unusable))?;
    Ok((buffer, answer))
}

/// A message behind its length, in one segment (RFC 7766 §8).
pub(super) async fn write_framed(stream: &mut (impl AsyncWriteExt + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
