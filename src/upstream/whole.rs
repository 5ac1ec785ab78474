//! A body as a peer sends it, which ends only where the peer ended it.

use super::BoxError;
use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// hyper takes an HTTP/2 stream that is reset with NO_ERROR for a body's end. What is cut off there is an error here, with that code
/// (RFC 9113 §8.1: only a message with END_STREAM is complete).
pub struct Whole {
    inner: Incoming,
    h2: bool,
}

impl Whole {
    /// `version` is that of the message.
    pub fn new(inner: Incoming, version: Version) -> Self {
        Self { inner, h2: version == Version::HTTP_2 }
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if frame.is_none() && self.h2 && !self.inner.is_end_stream() {
            return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::NO_ERROR).into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
