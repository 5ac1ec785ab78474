//! The child's side: sockets, framing, and how much may be under way at once.

use super::{Sockets, Stub, Transport, forward::write_framed};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, UdpSocket, tcp::OwnedReadHalf},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

/// UDP questions under way at once; more wait in the socket, which drops what it cannot hold.
const MAX_UDP: usize = 256;
/// TCP connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// Questions under way at once on one TCP connection; more are not read yet.
const MAX_PIPELINED: usize = 16;
/// How long a TCP client may take for its next question or to read an answer ("of the order of seconds", RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(30);
/// A pause after a failing accept or receive, which without descriptors or memory would fail again at once.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(sockets: Sockets, stub: Arc<Stub>) -> io::Result<()> {
    let mut servers = JoinSet::new();
    let questions = Arc::new(Semaphore::new(MAX_UDP));
    for socket in sockets.udp {
        socket.set_nonblocking(true)?;
        servers.spawn(serve_udp(Arc::new(UdpSocket::from_std(socket)?), stub.clone(), questions.clone()));
    }
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for listener in sockets.tcp {
        listener.set_nonblocking(true)?;
        servers.spawn(serve_tcp(TcpListener::from_std(listener)?, stub.clone(), connections.clone()));
    }
    while let Some(ended) = servers.join_next().await {
        ended.map_err(io::Error::other)?;
    }
    Ok(())
}

async fn serve_udp(socket: Arc<UdpSocket>, stub: Arc<Stub>, permits: Arc<Semaphore>) {
    // Questions are far shorter than this; what is longer is cut by the kernel and then malformed.
    let mut buffer = [0; 4096];
    while let Ok(permit) = permits.clone().acquire_owned().await {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "dns: receive");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (question, socket, stub) = (buffer[..length].to_vec(), socket.clone(), stub.clone());
        tokio::spawn(async move {
            if let Some(answer) = stub.answer(&question, Transport::Udp).await
                && let Err(error) = socket.send_to(&answer, client).await
            {
                tracing::debug!(%error, "dns: send");
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: TcpListener, stub: Arc<Stub>, permits: Arc<Semaphore>) {
    while let Ok(permit) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let stub = stub.clone();
                tokio::spawn(async move {
                    serve_connection(stream, stub).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "dns: accept");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers pipelined questions as they are ready, in any order (RFC 7766 §6.2.1.1).
async fn serve_connection(stream: TcpStream, stub: Arc<Stub>) {
    let (mut reader, mut writer) = stream.into_split();
    let (answers, mut ready) = mpsc::channel::<Vec<u8>>(MAX_PIPELINED);
    let writing = tokio::spawn(async move {
        while let Some(answer) = ready.recv().await {
            if !matches!(timeout(IDLE, write_framed(&mut writer, &answer)).await, Ok(Ok(()))) {
                return;
            }
        }
    });
    let permits = Arc::new(Semaphore::new(MAX_PIPELINED));
    while let Ok(permit) = permits.clone().acquire_owned().await {
        let Ok(Ok(question)) = timeout(IDLE, read_framed(&mut reader)).await else { break };
        if answers.is_closed() {
            break;
        }
        let (stub, answers) = (stub.clone(), answers.clone());
        tokio::spawn(async move {
            if let Some(answer) = stub.answer(&question, Transport::Tcp).await {
                // Fails only when the client does not read any more.
                let _ = answers.send(answer).await;
            }
            drop(permit);
        });
    }
    drop(answers);
    // Questions still under way are answered before the connection closes.
    let _ = writing.await;
}

async fn read_framed(reader: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = reader.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    reader.read_exact(&mut message).await?;
    Ok(message)
}
