//! An upload that nobody wants any more.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{runtime::Handle, time::timeout};

use super::downstream::Watch;
use crate::upstream::{BoxError, Whole};

/// How long it is read on: time for a child to see the answer and to end the stream itself.
const LIMIT: Duration = Duration::from_secs(2);

/// The body of a request. What is left of it when it is dropped is in HTTP/2 read and forgotten for a while: the answer would else be followed at
/// once by a reset of the stream (RFC 9113 §8.1), over which curl forgets the answer while it sends.
pub struct Lingering {
    /// `None` once dropped.
    body: Option<Whole>,
    h2: bool,
    /// In HTTP/1.1, where it is paused from when somebody asks for the body until that has ended.
    watch: Option<Watch>,
}

impl Lingering {
    /// `version` is that of the request.
    pub fn new(body: Incoming, version: Version, watch: Watch) -> Self {
        let h2 = version == Version::HTTP_2;
        let watch = (!h2 && !body.is_end_stream()).then_some(watch);
        Self { body: Some(Whole::new(body, version)), h2, watch }
    }

    fn ended(&mut self) {
        self.watch.take().iter().for_each(Watch::resume);
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.watch.iter().for_each(Watch::pause);
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            self.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.ended();
        let unread = self.body.take().filter(|body| self.h2 && !body.is_end_stream());
        // Without a runtime there is no connection either.
        if let (Some(mut body), Ok(runtime)) = (unread, Handle::try_current()) {
            let read = async move { while let Some(Ok(_)) = body.frame().await {} };
            runtime.spawn(timeout(LIMIT, read));
        }
    }
}
