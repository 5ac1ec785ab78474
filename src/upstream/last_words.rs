//! The ends of a connection: a server that closes in the middle of an upload may have said why, and a child that leaves says so.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::farewell::Child;

/// A stream whose other side no longer takes what is written: that is told by the reads, after what the other side has still sent. hyper would
/// give up at the failed write, and the answer with it.
pub struct LastWords<S> {
    stream: S,
    closed: bool,
    child: Child,
}

impl<S> LastWords<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, closed: false, child: Child::default() }
    }

    pub fn child(&self) -> Child {
        self.child.clone()
    }

    /// What is written to a closed stream is gone, as all that was on its way when it closed.
    fn unless_closed<T>(&mut self, written: Poll<io::Result<T>>, gone: T) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.closed = true;
                Poll::Ready(Ok(gone))
            }
            written => written,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LastWords<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LastWords<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_closed(written, bytes.len())
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        if self.closed {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_closed(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes whenever it has been woken and has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_pending() || !self.child.has_left() {
            return self.unless_closed(flushed, ());
        }
        let said = ready!(Pin::new(&mut self.stream).poll_shutdown(context));
        self.closed = true;
        self.unless_closed(Poll::Ready(said), ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
