//! The accept loop over listeners that were bound inside the namespace.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use netns::orig_dst::OrigDstError;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tracing::Instrument;

use super::{Context, connection::serve_connection, opaque};
use crate::{
    audit::{Blame, Verdict},
    host::Target,
};

/// How long a failed accept waits at most; a connection that closes (and frees its descriptors) ends the wait earlier.
const BACKOFF: Duration = Duration::from_millis(100);

/// Tells connections apart in the engineers' log.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Serves redirected connections until the runtime ends. `listeners` are bound inside the namespace.
pub async fn serve(listeners: Vec<std::net::TcpListener>, context: Arc<Context>) -> io::Result<()> {
    let closed = Arc::new(Notify::new());
    let mut loops = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let context = context.clone();
        let serve = move |stream, client| connection(stream, client, context.clone());
        loops.spawn(accept_loop(TcpListener::from_std(listener)?, closed.clone(), serve));
    }
    match loops.join_next().await {
        None => Ok(()),
        Some(ended) => Err(io::Error::other(match ended {
            Ok(never) => match never {},
            Err(error) => error,
        })),
    }
}

/// Never ends. `closed` is told of every connection that does.
pub(super) async fn accept_loop<F>(
    listener: TcpListener,
    closed: Arc<Notify>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) -> std::convert::Infallible
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let id = NEXT_ID.fetch_add(1, Relaxed);
                let (serving, closed) = (serve(stream, client), closed.clone());
                let span = tracing::debug_span!("connection", id, %client);
                tokio::spawn(
                    async move {
                        let _closing = Closing(closed);
                        serving.await;
                    }
                    .instrument(span),
                );
            }
            // EMFILE, ENFILE, ENOBUFS, or a client that left again (accept(2)): none ends the loop.
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::select! {
                    () = closed.notified() => {}
                    () = tokio::time::sleep(BACKOFF) => {}
                }
            }
        }
    }
}

/// Tells the accept loop that descriptors were freed, also when the connection panicked.
struct Closing(Arc<Notify>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, context: Arc<Context>) {
    match netns::orig_dst(&stream) {
        Ok(original) => serve_connection(stream, original.addr(), context).await,
        // A link-local address: nothing of the kind is gone to unless the user named it.
        Err(OrigDstError::Refused(addr)) if context.upstream.names(addr) => serve_connection(stream, addr, context).await,
        Err(error) => {
            let target = Target { host: client.ip().into(), port: client.port() };
            let mut guard = context.audit.begin("tcp", target, None);
            guard.verdict(Verdict::Refused, error.to_string());
            guard.blame(Blame::Downstream, error.to_string());
            opaque::reset(stream);
        }
    }
}
