//! The child's side: sockets, framing, and how much may be under way at once.

use super::{Sockets, Stub, Transport, forward::write_framed};
use std::{collections::VecDeque, convert::Infallible, io, sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, UdpSocket, tcp::OwnedReadHalf},
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

/// UDP questions under way at once on one socket.
const MAX_UDP: usize = 256;
/// TCP connections at once on one listener.
const MAX_CONNECTIONS: usize = 64;
/// Questions under way at once on one TCP connection; more are not read yet.
const MAX_PIPELINED: usize = 16;
/// How long a TCP client may take for its next question or to read an answer ("of the order of seconds", RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(30);
/// A pause after a failing accept or receive, which without descriptors or memory would fail again at once.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(sockets: Sockets, stub: Arc<Stub>) -> io::Result<()> {
    let mut servers = JoinSet::new();
    for socket in sockets.udp {
        socket.set_nonblocking(true)?;
        servers.spawn(serve_udp(Arc::new(UdpSocket::from_std(socket)?), stub.clone()));
    }
    for listener in sockets.tcp {
        listener.set_nonblocking(true)?;
        servers.spawn(serve_tcp(TcpListener::from_std(listener)?, stub.clone()));
    }
    match servers.join_next().await {
        None => Ok(()),
        Some(ended) => match ended.map_err(io::Error::other)? {},
    }
}

/// Tasks under way. Where there is room for no more, the oldest gives way to the next: it has waited longest for a server that may never answer or
/// for a client that says nothing, and must not keep others from being served.
struct UnderWay {
    most: usize,
    tasks: VecDeque<AbortHandle>,
}

impl UnderWay {
    fn at_most(most: usize) -> Self {
        Self { most, tasks: VecDeque::new() }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        if self.tasks.len() == self.most {
            self.tasks.retain(|task| !task.is_finished());
        }
        if self.tasks.len() == self.most
            && let Some(oldest) = self.tasks.pop_front()
        {
            oldest.abort();
        }
        self.tasks.push_back(tokio::spawn(task).abort_handle());
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, stub: Arc<Stub>) -> Infallible {
    let mut questions = UnderWay::at_most(MAX_UDP);
    // Questions are far shorter than this; what is longer is cut by the kernel and then malformed.
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "dns: receive");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (question, socket, stub) = (buffer[..length].to_vec(), socket.clone(), stub.clone());
        questions.spawn(async move {
            if let Some(answer) = stub.answer(&question, Transport::Udp).await
                && let Err(error) = socket.send_to(&answer, client).await
            {
                tracing::debug!(%error, "dns: send");
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, stub: Arc<Stub>) -> Infallible {
    let mut connections = UnderWay::at_most(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.spawn(serve_connection(stream, stub.clone())),
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
    // Ends with the connection, also when that gives way to another.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
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
        while tasks.try_join_next().is_some() {}
        let (stub, answers) = (stub.clone(), answers.clone());
        tasks.spawn(async move {
            if let Some(answer) = stub.answer(&question, Transport::Tcp).await {
                // Fails only when the client does not read any more.
                let _ = answers.send(answer).await;
            }
            drop(permit);
        });
    }
    drop(answers);
    // Questions still under way are answered before the connection closes.
    while tasks.join_next().await.is_some() {}
}

async fn read_framed(reader: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = reader.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    reader.read_exact(&mut message).await?;
    Ok(message)
}
