//! The accept loop.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tracing::Instrument;

/// How long a failed accept waits at most; a connection that closes (and frees its descriptors) ends the wait earlier.
const BACKOFF: Duration = Duration::from_millis(100);

/// Tells connections apart in the engineers' log.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Never ends. `closed` is told of every connection that does.
pub(super) async fn accept_loop<F>(
    listener: TcpListener,
    closed: Arc<Notify>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) -> std::convert::Infallible
where
    F: Future<Output = ()> + Send + 'static,
{
    #[cfg(target_os = "linux")]
    model_nothing(&listener);
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

/// Clients come over loopback, which loses nothing and has no rate to find out. Connections inherit the listener's congestion control, and Reno
/// alone neither models the path nor paces its segments by a timer, as the system's own choice may (BBR). Every kernel has it, and lets anybody
/// choose it unless tcp_allowed_congestion_control (ip-sysctl) says otherwise; then it stays as it was.
#[cfg(target_os = "linux")]
fn model_nothing(listener: &TcpListener) {
    if let Err(error) = socket2::SockRef::from(listener).set_tcp_congestion(b"reno") {
        tracing::debug!(%error, "congestion control");
    }
}

/// Tells the accept loop that descriptors were freed, also when the connection panicked.
struct Closing(Arc<Notify>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
