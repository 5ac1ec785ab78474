//! The child's side of an opened connection, which ends as the server's did.

use std::{
    error::Error,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;

use crate::upstream::{BoxError, Farewell};

/// After our last octet, how long a child that goes on sending may be silent before its connection is closed; nginx's lingering_timeout.
const LINGER: Duration = Duration::from_secs(5);

/// Closed without a TLS close_notify when dropped, and with RST instead of FIN once told so, or by a panic.
pub struct Downstream {
    incoming: Watch,
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

/// Sees a child leave while hyper, which has read a whole request, does not read. Of the task that hyper's connection is of.
#[derive(Clone)]
pub struct Watch(Arc<Mutex<Incoming>>);

/// The stream, and what was read while a request was under way: of the next one, or of a body.
struct Incoming {
    stream: Box<TlsStream<TcpStream>>,
    ahead: Vec<u8>,
    /// Said by a close_notify, after which the child may still read (RFC 8446 §6.1).
    farewell: Farewell,
    pause: Pause,
}

/// For as long as hyper reads a body, and sees by itself.
#[derive(Default)]
struct Pause {
    on: bool,
    waiting: Option<Waker>,
}

impl Pause {
    fn end(&mut self) {
        self.on = false;
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.on {
            return Poll::Ready(());
        }
        self.waiting = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While hyper reads a request's body, until that has been read or is dropped.
    pub fn pause(&self) {
        self.lock().pause.on = true;
    }

    pub fn resume(&self) {
        self.lock().pause.end();
    }

    /// Ready once the connection is broken: by a reset, or by an end without close_notify.
    pub fn poll_left(&self, context: &mut Context<'_>) -> Poll<io::Error> {
        let mut incoming = self.lock();
        ready!(incoming.pause.poll_over(context));
        if incoming.farewell.is_said() || !incoming.ahead.is_empty() {
            return Poll::Pending;
        }
        let mut chunk = [0; 1024];
        let mut read = ReadBuf::new(&mut chunk);
        if let Err(error) = ready!(Pin::new(&mut incoming.stream).poll_read(context, &mut read)) {
            return Poll::Ready(error);
        }
        match read.filled() {
            [] => incoming.farewell.say(),
            octets => incoming.ahead.extend_from_slice(octets),
        }
        // Whoever is to hear of it may have looked before.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Downstream {
    pub fn new(stream: Box<TlsStream<TcpStream>>, ending: Ending, farewell: Farewell) -> Self {
        let incoming = Incoming { stream, ahead: Vec::new(), farewell, pause: Pause::default() };
        Self { incoming: Watch(Arc::new(Mutex::new(incoming))), ending, linger: None }
    }

    pub fn watch(&self) -> Watch {
        self.incoming.clone()
    }

    /// Reads and forgets until the child closes as well: a connection that is closed with octets unread is reset, and the child might lose our last
    /// answer over it (RFC 9112 §9.6).
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = &mut self.linger else { return Poll::Ready(()) };
        let mut chunk = [0; 4096];
        loop {
            let mut unread = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.incoming.lock().stream).poll_read(context, &mut unread) {
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
            drop(self.incoming.lock().stream.get_ref().0.set_zero_linger());
        }
    }
}

impl AsyncRead for Downstream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut incoming = self.incoming.lock();
        if incoming.ahead.is_empty() {
            return Pin::new(&mut incoming.stream).poll_read(context, buffer);
        }
        let octets = incoming.ahead.len().min(buffer.remaining());
        buffer.put_slice(&incoming.ahead[..octets]);
        incoming.ahead.drain(..octets);
        if incoming.ahead.is_empty() {
            incoming.ahead = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.incoming.lock().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.incoming.lock().stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.incoming.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.incoming.lock().stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.upgraded.load(Relaxed) {
            return Pin::new(&mut self.incoming.lock().stream).poll_shutdown(context);
        }
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.incoming.lock().stream).poll_shutdown(context))?;
            self.linger = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        self.poll_leave(context).map(Ok)
    }
}

/// A response's body, which ends in an error once the child has left.
pub struct Watched<B> {
    pub body: B,
    pub watch: Watch,
}

impl<B> Body for Watched<B>
where
    B: Body<Error = BoxError> + Unpin,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Poll::Ready(left) = self.watch.poll_left(context) {
            return Poll::Ready(Some(Err(left.into())));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    #[test]
    fn the_end_of_a_pause_wakes() {
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Relaxed);
            }
        }
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let (waker, mut pause) = (woken.clone().into(), Pause::default());
        let mut context = Context::from_waker(&waker);
        assert!(pause.poll_over(&mut context).is_ready());
        pause.on = true;
        assert!(pause.poll_over(&mut context).is_pending() && !woken.0.load(Relaxed));
        pause.end();
        assert!(woken.0.load(Relaxed) && pause.poll_over(&mut context).is_ready());
    }
}
