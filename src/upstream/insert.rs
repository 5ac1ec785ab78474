//! What hyper does not write in HTTP/1.1, put between the octets that it writes. Both kinds go by a flush: hyper flushes its stream only when it has
//! written all that it had.
//!
//! Trailers, which hyper writes only where `Trailer` declares them and, in a response, where the child sent `TE: trailers`. What a
//! peer sent goes on without either (RFC 9112 §7.1.2).
//! The body ends without them, and hyper writes the last chunk; on its way out the trailer section is put into that. It cannot be taken for
//! other octets: the body ends only after hyper has written all it had, so the last chunk is what hyper writes next. Whatever else comes then breaks
//! the connection. Where hyper does not write chunks it writes nothing then, and the trailers are dropped.
//!
//! Interim answers (RFC 9110 §15.2), of which hyper's server sends `100 Continue` alone. hyper has one request answered at a time, and only once it has
//! the whole answer to the one before. So what comes meanwhile is written by the next flush, behind all earlier answers, and the final answer is given
//! to hyper only after that flush.

use super::{BoxError, fields};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, header};
use http_body::{Body, Frame, SizeHint};
use std::{
    future::poll_fn,
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

/// Octets of interim answers that wait to be written, which a child that does not read makes them do. Further ones are dropped: a client can do
/// without any (RFC 9110 §15.2). As much as a request's head may have.
const MAX_INTERIM: usize = 128 * 1024;

/// The stream that hyper writes HTTP/1.1 to.
pub struct InsertStream<S> {
    stream: S,
    inserts: Inserts,
    unwritten: Bytes,
}

/// Between an [`InsertStream`] and what is written to it, which is polled by one task.
#[derive(Clone, Default)]
pub struct Inserts(Arc<Mutex<Handover>>);

#[derive(Default)]
struct Handover {
    /// A body waits until hyper has written all that it had.
    flush: bool,
    /// To be written in place of [`END`], which is next.
    end: Option<Bytes>,
    /// Interim answers, to be written when hyper has written all that it had.
    interim: Vec<u8>,
}

/// A body that hands its trailers to the stream.
pub struct TrailerBody<B> {
    body: B,
    inserts: Inserts,
    /// What is to end it, while the stream is flushed.
    end: Option<Bytes>,
}

impl Inserts {
    pub fn trailers_of<B>(&self, body: B) -> TrailerBody<B> {
        TrailerBody { body, inserts: self.clone(), end: None }
    }

    /// Has an interim answer's head written by the next flush, which follows where the stream's own task calls this.
    pub fn interim(&self, head: &[u8]) {
        let waiting = &mut self.lock().interim;
        if waiting.len() + head.len() <= MAX_INTERIM {
            waiting.extend_from_slice(head);
        }
    }

    /// Until whatever is written from now on comes after the interim answers. [`InsertStream::poll_flush`] wakes.
    pub async fn interim_taken(&self) {
        poll_fn(|_| if self.lock().interim.is_empty() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn lock(&self) -> MutexGuard<'_, Handover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a chunked message with trailers, or `None` if none of them may be passed on.
fn end(mut trailers: HeaderMap) -> Option<Bytes> {
    fields::retain(&mut trailers, |name| !(REFUSED.contains(name) || fields::OF_CONNECTION.contains(name)));
    let mut end = b"0\r\n".to_vec();
    fields::write(&trailers, &mut end);
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
            this.inserts.lock().flush = true;
        }
        let mut handover = this.inserts.lock();
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

impl<S: AsyncWrite + Unpin> InsertStream<S> {
    pub fn new(stream: S, inserts: Inserts) -> Self {
        Self { stream, inserts, unwritten: Bytes::new() }
    }

    /// Once all has been flushed.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// How many of these octets have been replaced; those are written first of all.
    fn replace(&mut self, octets: &[u8]) -> io::Result<Option<usize>> {
        let mut handover = self.inserts.lock();
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

impl<S: AsyncRead + Unpin> AsyncRead for InsertStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InsertStream<S> {
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

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(context))?;
        let mut handover = self.inserts.lock();
        let interim = std::mem::take(&mut handover.interim);
        if std::mem::take(&mut handover.flush) || !interim.is_empty() {
            context.waker().wake_by_ref();
        }
        drop(handover);
        self.unwritten = interim.into();
        ready!(self.poll_unwritten(context))?;
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
    use http_body_util::{BodyExt, Empty, Full};
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
        let trailers = Inserts::default();
        let stream = InsertStream::new(ours, trailers.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let body = trailers.trailers_of(with_trailers(if request.uri() == "/empty" { "" } else { "0\r\n\r\n" }));
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

    const HINTS: [&str; 2] = ["HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n", "HTTP/1.1 110 \r\n\r\n"];

    /// Octet by octet, hyper calls for the second answer with the first not written yet, since nobody reads; then there is room for all.
    #[tokio::test]
    async fn interim_answers_stand_between_answers() {
        for capacity in [1, 4096] {
            let (ours, theirs) = tokio::io::duplex(capacity);
            let inserts = Inserts::default();
            let stream = InsertStream::new(ours, inserts.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let inserts = inserts.clone();
                async move {
                    if request.uri() == "/hints" {
                        HINTS.iter().for_each(|head| inserts.interim(head.as_bytes()));
                    }
                    tokio::spawn(request.into_body().collect());
                    inserts.interim_taken().await;
                    Response::builder().status(204).body(Empty::<Bytes>::new())
                }
            });
            let mut http = http1::Builder::new();
            let server = tokio::spawn(http.half_close(true).auto_date_header(false).serve_connection(TokioIo::new(stream), service));
            let (mut read, mut write) = tokio::io::split(theirs);
            for path in ["/", "/hints"] {
                write.write_all(format!("POST {path} HTTP/1.1\r\ncontent-length: 3\r\n\r\nall").as_bytes()).await.unwrap();
            }
            let ask = async {
                write.write_all(b"GET /hints HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut answers = String::new();
            let (_, read) = tokio::join!(ask, read.read_to_string(&mut answers));
            read.unwrap();
            server.await.unwrap().unwrap();
            let (hints, last) = (HINTS.concat(), "HTTP/1.1 204 No Content\r\n\r\n");
            assert_eq!(answers, format!("{last}{hints}{last}{hints}{last}{last}"));
        }
    }

    #[test]
    fn interim_answers_that_nobody_reads_are_few() {
        let inserts = Inserts::default();
        for _ in 0..100 {
            inserts.interim(&[b'x'; 10_000]);
        }
        assert_eq!(inserts.lock().interim.len(), MAX_INTERIM / 10_000 * 10_000);
    }

    #[tokio::test]
    async fn anything_but_a_last_chunk_is_not_written() {
        let mut stream = InsertStream::new(Vec::new(), Inserts::default());
        let mut body = stream.inserts.trailers_of(with_trailers("all"));
        assert!(body.frame().await.unwrap().unwrap().is_data());
        let mut frame = pin!(body.frame());
        assert!(poll_fn(|context| Poll::Ready(frame.as_mut().poll(context))).await.is_pending());
        stream.write_all(b"3\r\nall\r\n").await.unwrap();
        assert!(poll_fn(|context| Poll::Ready(frame.as_mut().poll(context))).await.is_pending());
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
