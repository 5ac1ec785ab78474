//! The child's side of an opened connection, which ends as the server's did.

use std::{
    error::Error,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// Closed without a TLS close_notify when dropped, and with RST instead of FIN once told so.
pub struct Downstream {
    stream: TlsStream<TcpStream>,
    reset: Reset,
}

/// Tells a [`Downstream`], which hyper owns, how to end.
#[derive(Clone, Default)]
pub struct Reset(Arc<AtomicBool>);

impl Downstream {
    pub fn new(stream: TlsStream<TcpStream>, reset: Reset) -> Self {
        Self { stream, reset }
    }
}

impl Reset {
    /// What the server has reset is reset for the child as well.
    pub fn follow(&self, error: &(dyn Error + 'static)) {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset) {
                self.0.store(true, Relaxed);
            }
            cause = error.source();
        }
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        if self.reset.0.load(Relaxed) {
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
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
