//! Trailers in HTTP/1.1, which hyper writes only where `Trailer` declares them and, in a response, where the child sent `TE: trailers`. What a
//! peer sent goes on without either (RFC 9112 §7.1.2).
//!
//! The body ends without them, and hyper writes the last chunk; on its way out the trailer section is put into that. It cannot be taken for
//! other octets: the body ends only after hyper has written all it had, so the last chunk is what hyper writes next. Whatever else comes then breaks
//! the connection. Where hyper does not write chunks it writes nothing then, and the trailers are dropped.

use super::{BoxError, fields};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, header};
use http_body::{Body, Frame, SizeHint};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The last chunk and an empty trailer section, as hyper ends a chunked message (RFC 9112 §7.1).
const END: &[u8] = b"0\r\n\r\n";

/// About the message, so no trailers (RFC 9110 §6.5.1), besides [`fields::OF_CONNECTION`]; hyper refuses the same.
const REFUSED: [HeaderName; 11] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
];

/// The stream that hyper writes HTTP/1.1 to.
pub struct TrailerStream<S> {
    stream: S,
    trailers: Trailers,
    /// Of an end with trailers.
    unwritten: Bytes,
}

/// Between a [`TrailerStream`] and the bodies written to it, which are polled by one task.
#[derive(Clone, Default)]
pub struct Trailers(Arc<Mutex<Handover>>);

#[derive(Default)]
struct Handover {
    /// A body waits until hyper has written all that it had.
    flush: bool,
    /// To be written in place of [`END`], which is next.
    end: Option<Bytes>,
}

/// A body that hands its trailers to the stream.
pub struct TrailerBody<B> {
    body: B,
    trailers: Trailers,
    /// What is to end it, while the stream is flushed.
    end: Option<Bytes>,
}

impl Trailers {
    pub fn of<B>(&self, body: B) -> TrailerBody<B> {
        TrailerBody { body, trailers: self.clone(), end: None }
    }

    fn lock(&self) -> MutexGuard<'_, Handover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a chunked message with trailers, or `None` if none of them may be passed on.
fn end(mut trailers: HeaderMap) -> Option<Bytes> {
    fields::retain(&mut trailers, |name| !(REFUSED.contains(name) || fields::OF_CONNECTION.contains(name)));
    let mut end = b"0\r\n".to_vec();
    for (name, value) in &trailers {
        end.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    end.extend(b"\r\n");
    (!trailers.is_empty()).then(|| end.into())
}

/// Without the connection that it was meant for.
impl From<TrailerBody<Self>> for super::Body {
    fn from(unsent: TrailerBody<Self>) -> Self {
        unsent.body
    }
}

impl<B> Body for TrailerBody<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.end.is_none() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame.into_trailers(),
                other => return Poll::Ready(other),
            };
            match frame.map(end) {
                Ok(Some(end)) => this.end = Some(end),
                Ok(None) => return Poll::Ready(None),
                Err(data) => return Poll::Ready(Some(Ok(data))),
            }
            this.trailers.lock().flush = true;
        }
        let mut handover = this.trailers.lock();
        if handover.flush {
            return Poll::Pending;
        }
        handover.end = this.end.take();
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<S: AsyncWrite + Unpin> TrailerStream<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, trailers: Trailers::default(), unwritten: Bytes::new() }
    }

    pub fn trailers(&self) -> Trailers {
        self.trailers.clone()
    }

    /// How many of these octets have been replaced; those are written first of all.
    fn replace(&mut self, octets: &[u8]) -> io::Result<Option<usize>> {
        let mut handover = self.trailers.lock();
        if handover.end.is_some() && !octets.starts_with(END) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "trailers without a last chunk"));
        }
        let Some(end) = handover.end.take() else { return Ok(None) };
        drop(handover);
        self.unwritten = end;
        Ok(Some(END.len()))
    }

    fn poll_unwritten(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unwritten.has_remaining() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.unwritten))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.unwritten.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrailerStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrailerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unwritten(context))?;
        match self.replace(octets)? {
            Some(replaced) => Poll::Ready(Ok(replaced)),
            None => Pin::new(&mut self.stream).poll_write(context, octets),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unwritten(context))?;
        match self.replace(slices.first().map_or(&[], |first| first))? {
            Some(replaced) => Poll::Ready(Ok(replaced)),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes only when it has written all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(context))?;
        let mut handover = self.trailers.lock();
        if std::mem::take(&mut handover.flush) {
            context.waker().wake_by_ref();
        }
        drop(handover);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use std::pin::pin;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn with_trailers(body: &'static str) -> impl Body<Data = Bytes, Error = BoxError> + Unpin {
        let trailers = HeaderMap::from_iter(
            [("x-sum", "7"), ("content-length", "9"), ("connection", "x")]
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        );
        let body = Full::new(Bytes::from_static(body.as_bytes())).with_trailers(std::future::ready(Some(Ok(trailers))));
        body.map_err(|never| match never {}).boxed()
    }

    /// Octet by octet, and with data that looks like an end.
    #[tokio::test]
    async fn trailers_stand_in_the_last_chunk() {
        let (ours, theirs) = tokio::io::duplex(1);
        let stream = TrailerStream::new(ours);
        let trailers = stream.trailers();
        let service = service_fn(move |request: Request<Incoming>| {
            let body = trailers.of(with_trailers(if request.uri() == "/empty" { "" } else { "0\r\n\r\n" }));
            async { Response::builder().header("transfer-encoding", "chunked").body(body) }
        });
        let server =
            tokio::spawn(http1::Builder::new().half_close(true).auto_date_header(false).serve_connection(TokioIo::new(stream), service));
        let (mut read, mut write) = tokio::io::split(theirs);
        let ask = async {
            for path in ["/", "/empty", "/"] {
                write.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
            }
            write.shutdown().await.unwrap();
        };
        let mut answers = String::new();
        let (_, read) = tokio::join!(ask, read.read_to_string(&mut answers));
        read.unwrap();
        server.await.unwrap().unwrap();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (end, full) = ("0\r\nx-sum: 7\r\n\r\n", "5\r\n0\r\n\r\n\r\n");
        assert_eq!(answers, format!("{head}{full}{end}{head}{end}{head}{full}{end}"));
    }

    #[tokio::test]
    async fn anything_but_a_last_chunk_is_not_written() {
        let mut stream = TrailerStream::new(Vec::new());
        let mut body = stream.trailers().of(with_trailers("all"));
        assert!(body.frame().await.unwrap().unwrap().is_data());
        let mut frame = pin!(body.frame());
        assert!(std::future::poll_fn(|context| Poll::Ready(frame.as_mut().poll(context))).await.is_pending());
        stream.write_all(b"3\r\nall\r\n").await.unwrap();
        assert!(std::future::poll_fn(|context| Poll::Ready(frame.as_mut().poll(context))).await.is_pending());
        stream.flush().await.unwrap();
        assert!(frame.await.is_none());
        for _ in 0..2 {
            assert_eq!(stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap_err().kind(), io::ErrorKind::InvalidData);
            let slices = [IoSlice::new(b"0\r\n"), IoSlice::new(b"\r\n")];
            assert_eq!(stream.write_vectored(&slices).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        stream.flush().await.unwrap();
        assert_eq!(stream.stream, b"3\r\nall\r\n");
    }
}
