//! One request and its response under way: counted while they stream, recorded once when both are gone.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::scrub::Hits;
use crate::{
    audit::{Blame, Guard},
    upstream::{Body, BoxError},
};

/// Shared by both bodies; the last to drop it writes the record.
pub struct Exchange {
    guard: Mutex<Guard>,
    sent: AtomicU64,
    received: AtomicU64,
    answered: AtomicBool,
    uploading: AtomicBool,
    hits: Hits,
}

impl Exchange {
    /// With the request's body.
    pub fn new(guard: Guard, body: &impl HttpBody) -> Arc<Self> {
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let (answered, uploading) = (AtomicBool::new(false), AtomicBool::new(!body.is_end_stream()));
        Arc::new(Self { guard: Mutex::new(guard), sent, received, answered, uploading, hits: Hits::default() })
    }

    pub fn record(&self, tell: impl FnOnce(&mut Guard)) {
        tell(&mut self.guard.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A response, the server's or ours, is on its way to the child.
    pub fn answered(&self, status: StatusCode) {
        self.answered.store(true, Relaxed);
        self.record(|guard| guard.status(status.as_u16()));
    }

    /// Whether not all of the request's body has been read.
    pub fn is_uploading(&self) -> bool {
        self.uploading.load(Relaxed)
    }

    /// Adds octets: from the child, to the child.
    pub fn count(&self, sent: u64, received: u64) {
        self.sent.fetch_add(sent, Relaxed);
        self.received.fetch_add(received, Relaxed);
    }

    /// How often the injected credential came back in the response.
    pub fn hits(&self) -> Hits {
        self.hits.clone()
    }

    /// The child's body on its way up.
    pub fn request_body<B>(self: &Arc<Self>, body: B) -> Body
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Sync + Unpin + 'static,
    {
        Metered { body, exchange: self.clone(), side: Blame::Downstream }.boxed()
    }

    /// The server's body on its way down.
    pub fn response_body<B>(self: &Arc<Self>, body: B) -> Body
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Sync + Unpin + 'static,
    {
        Metered { body, exchange: self.clone(), side: Blame::Upstream }.boxed()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let (sent, received) = (self.sent.load(Relaxed), self.received.load(Relaxed));
        let left = !self.answered.load(Relaxed) && !std::thread::panicking();
        let scrubbed = self.hits.load(Relaxed);
        self.record(|guard| {
            guard.bytes(sent, received);
            guard.scrubbed(scrubbed);
            if left {
                guard.blame(Blame::Downstream, "the client left before the response");
            }
        });
    }
}

/// A body that counts itself and says whose error ended it.
struct Metered<B> {
    body: B,
    exchange: Arc<Exchange>,
    side: Blame,
}

impl<B> HttpBody for Metered<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if self.side == Blame::Downstream && (frame.is_none() || self.body.is_end_stream()) {
            self.exchange.uploading.store(false, Relaxed);
        }
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => {
                let octets = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                match self.side {
                    Blame::Downstream => self.exchange.count(octets, 0),
                    Blame::Upstream | Blame::Internal => self.exchange.count(0, octets),
                }
                Ok(frame)
            }
            Err(error) => {
                let error = error.into();
                self.exchange.record(|guard| guard.blame(self.side, error.to_string()));
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
