//! What a child is still sending when its request has been answered. In HTTP/2 the answer is followed by a reset of the stream where the request
//! has not ended and nobody reads it (RFC 9113 §8.1), and curl forgets the answer over it.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use tokio::runtime::Handle;

use crate::upstream::BoxError;

/// Octets that are read before an answer of ours.
const MAX_DRAINED: usize = 256 * 1024;
/// How long is read, before it or after the server's.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Reads and forgets what is refused here, before the answer.
pub async fn drain<B: Body<Error: Into<BoxError>>>(body: B) {
    let read = Limited::new(body, MAX_DRAINED).collect();
    drop(tokio::time::timeout(DRAIN_LIMIT, read).await);
}

async fn forget<B: Body + Unpin>(mut body: B) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// A request's body of which the rest is read for a while if the server does not want it.
pub struct Unread<B: Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static>(pub Option<B>);

impl<B: Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static> Body for Unread<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static> Drop for Unread<B> {
    fn drop(&mut self) {
        if let Some(body) = self.0.take()
            && !body.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(DRAIN_LIMIT, forget(body)));
        }
    }
}
