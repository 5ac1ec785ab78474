//! The child's side of an opened connection, which ends as the server's did.

use std::{
    error::Error,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;

/// After our last octet, how long a child that goes on sending may be silent before its connection is closed; nginx's lingering_timeout.
const LINGER: Duration = Duration::from_secs(5);

/// Closed without a TLS close_notify when dropped, and with RST instead of FIN once told so, or by a panic.
pub struct Downstream {
    stream: TlsStream<TcpStream>,
    ending: Ending,
    /// Once all has been sent.
    linger: Option<Pin<Box<Sleep>>>,
}

/// Tells a [`Downstream`], which hyper owns, how to end.
#[derive(Clone, Default)]
pub struct Ending {
    reset: Arc<AtomicBool>,
    upgraded: Arc<AtomicBool>,
}

impl Downstream {
    pub fn new(stream: TlsStream<TcpStream>, ending: Ending) -> Self {
        Self { stream, ending, linger: None }
    }
}

impl Downstream {
    /// Reads and forgets until the child closes as well: a connection that is closed with octets unread is reset, and the child might lose our last
    /// answer over it (RFC 9112 §9.6).
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = &mut self.linger else { return Poll::Ready(()) };
        let mut chunk = [0; 4096];
        loop {
            let mut unread = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.stream).poll_read(context, &mut unread) {
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => linger.as_mut().reset(Instant::now() + LINGER),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return linger.as_mut().poll(context),
            }
        }
    }
}

impl Ending {
    /// HTTP is over on this connection, and whatever the child sends from now on is somebody's to read.
    pub fn upgraded(&self) {
        self.upgraded.store(true, Relaxed);
    }

    /// What the server has reset is reset for the child as well.
    pub fn follow(&self, error: &(dyn Error + 'static)) {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset) {
                self.reset.store(true, Relaxed);
            }
            cause = error.source();
        }
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        if self.ending.reset.load(Relaxed) || std::thread::panicking() {
            // A socket that refuses the option is dead already.
            drop(self.stream.get_ref().0.set_zero_linger());
        }
    }
}

impl AsyncRead for Downstream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.upgraded.load(Relaxed) {
            return Pin::new(&mut self.stream).poll_shutdown(context);
        }
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.linger = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        self.poll_leave(context).map(Ok)
    }
}
