//! The time between "go" and the end: serve, pass signals on, follow the command.

use std::{
    collections::VecDeque,
    io,
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use nix::sys::signal::Signal;
use tokio::{
    io::unix::AsyncFd,
    runtime::{self, Runtime},
    sync::{mpsc, oneshot},
};

use crate::{dns, proxy};

use super::{
    RunError,
    common::LAST_BYTES,
    message::{Event, Listening, News, Supervisor},
    ports,
    sandbox::Sandbox,
    signals::{self, Sent, Signals},
};

/// Sockets bound before "go", by both sides.
pub struct Sockets {
    pub listening: Listening,
    pub exposed: Vec<(u16, Vec<TcpListener>)>,
    pub published: Vec<(u16, Vec<TcpListener>)>,
}

/// What the data plane needs besides the sockets.
pub struct Services {
    pub context: Arc<proxy::Context>,
    pub upstreams: dns::Upstreams,
    /// Whether the host has a default IPv6 route.
    pub v6: bool,
}

/// What serves, its threads started.
pub fn runtime() -> Result<Runtime, RunError> {
    runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)
}

/// Says "go" and serves until the command has ended; its exit code, 128+N for a signal. With `audited`, a record that cannot be written is an error.
pub fn serve(
    runtime: Runtime,
    sandbox: &Sandbox,
    sockets: Sockets,
    services: Services,
    signals: Signals,
    audited: bool,
) -> Result<u8, RunError> {
    let Listening { listeners, dns_tcp, dns_udp, .. } = sockets.listening;
    let dns = dns::Sockets { udp: dns_udp, tcp: dns_tcp };
    let Services { context, upstreams, v6 } = services;
    let (wanted, requests) = mpsc::channel(ports::QUEUE);
    let result = runtime.block_on(async {
        let mut signals = signals.watch().map_err(RunError::Runtime)?;
        tokio::select! {
            result = proxy::serve(listeners, context.clone()) => Err(stopped("the proxy", result)),
            result = dns::serve(dns, upstreams, context.names.clone(), v6) => Err(stopped("the DNS stub", result)),
            result = ports::serve(sockets.exposed, sockets.published, wanted, &context.audit) => Err(stopped("port forwarding", result)),
            result = sandbox.pasta_ended() => Err(stopped("pasta", result)),
            () = context.audit.broken(), if audited => Err(RunError::AuditRequired),
            code = async {
                let code = follow(sandbox, &mut signals, requests).await;
                // What the command said last is on its way when it has ended.
                let _ = tokio::time::timeout(LAST_BYTES, context.audit.quiet()).await;
                code
            } => code,
        }
    });
    runtime.shutdown_background();
    result
}

/// Without its proxy or its resolver the run cannot go on.
fn stopped(what: &'static str, result: io::Result<()>) -> RunError {
    RunError::Stopped(what, result.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
}

/// The deprecated constructor: see [`Signals::watch`].
#[expect(deprecated)]
async fn follow(sandbox: &Sandbox, signals: &mut Sent, mut sockets: mpsc::Receiver<ports::Wanted>) -> Result<u8, RunError> {
    let supervisor = sandbox.supervisor();
    let channel = AsyncFd::new(supervisor.0.as_fd()).map_err(RunError::Runtime)?;
    let mut asked: VecDeque<oneshot::Sender<io::Result<OwnedFd>>> = VecDeque::new();
    let mut ended = None;
    supervisor.go()?;
    loop {
        tokio::select! {
            // Whoever is gone needs no signal and no socket; its end is the next news.
            signal = signals.next() => drop(supervisor.signal(signal.map_err(RunError::Runtime)?)),
            Some(wanted) = sockets.recv() => {
                drop(supervisor.ask_socket(wanted.v6));
                asked.push_back(wanted.reply);
            }
            news = news(&channel, &supervisor) => match (news, ended) {
                (Ok(News::Socket(socket)), _) => {
                    let reply = asked.pop_front().ok_or(RunError::Protocol)?;
                    drop(reply.send(socket.map_err(io::Error::from_raw_os_error)));
                }
                (Ok(News::Event(Event::Started)), _) => {}
                (Ok(News::Event(Event::NotStarted(errno))), _) => return Err(RunError::CannotRun(errno)),
                (Ok(News::Event(Event::Stopped)), _) => {
                    signals::stop_self().map_err(|errno| RunError::Runtime(errno.into()))?;
                    drop(supervisor.signal(Signal::SIGCONT as i32));
                }
                // Its background processes are served until init has ended them.
                (Ok(News::Event(Event::Exited(code))), _) => ended = Some(code),
                (Ok(News::Event(Event::Killed(signal))), _) => ended = Some((128 + signal) as u8),
                (Ok(News::Event(Event::Alone)) | Err(_), Some(code)) => return Ok(code),
                (Ok(News::Event(Event::Alone)), None) => return Err(RunError::Protocol),
                (Err(error), None) => return Err(error),
            },
        }
    }
}

/// The next message, or the error that says init is gone. Readiness is kept until the socket is found empty.
async fn news(channel: &AsyncFd<BorrowedFd<'_>>, supervisor: &Supervisor<'_>) -> Result<News, RunError> {
    loop {
        let mut ready = channel.readable().await.map_err(RunError::Runtime)?;
        if let Some(news) = supervisor.news()? {
            return Ok(news);
        }
        ready.clear_ready();
    }
}
