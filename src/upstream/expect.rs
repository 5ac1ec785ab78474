//! `Expect: 100-continue` (RFC 9110 §10.1.1): a body is sent once the server asks for it. So the child is asked for it then, and not at all where
//! the server answers at once.
//!
//! Other interim answers (`103 Early Hints`, `102 Processing`) are told to whoever listens. All of that is HTTP/1.1: hyper's HTTP/2 neither tells of
//! any nor sends any, though the h2 crate below it could.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Notify;

use super::{Body, BoxError};

/// How long a body waits for a server that does not know the expectation; as curl(1) does, --expect100-timeout.
const PATIENCE: Duration = Duration::from_secs(1);

const WAITING: u8 = 0;
const WANTED: u8 = 1;
const ANSWERED: u8 = 2;

/// What has become of a body that waits.
#[derive(Clone, Default)]
pub struct Expectation {
    state: Arc<AtomicU8>,
    met: Arc<Notify>,
}

impl Expectation {
    fn meet(&self) {
        self.met.notify_one();
    }

    /// The answer has come. Whether it refuses a body that had not been asked for; then that is never sent, and the connection is of no further
    /// use. Any other answer leaves the child free to send it.
    pub fn answered(&self, status: StatusCode) -> bool {
        if status.is_client_error() || status.is_server_error() {
            return self.state.compare_exchange(WAITING, ANSWERED, Relaxed, Relaxed).is_ok();
        }
        self.meet();
        false
    }

    fn is_wanted(&self) -> bool {
        !matches!(self.state.compare_exchange(WAITING, WANTED, Relaxed, Relaxed), Err(ANSWERED))
    }
}

fn expects(request: &Request<Body>) -> bool {
    request.headers().get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Listens to the interim answers to this request, in the task that waits for the final one. Not to `100 Continue`, which a body waits for.
pub fn on_interim(request: &mut Request<Body>, tell: impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static) {
    let asked = expects(request).then(|| request.extensions_mut().get_or_insert_default::<Expectation>().clone());
    hyper::ext::on_informational(request, move |interim| match (interim.status(), &asked) {
        (StatusCode::CONTINUE, asked) => asked.iter().for_each(Expectation::meet),
        (status, _) => tell(status, interim.headers()),
    });
}

/// Makes the body wait if the request says so.
pub fn hold(mut request: Request<Body>) -> (Request<Body>, Option<Expectation>) {
    if !expects(&request) || request.body().is_end_stream() {
        return (request, None);
    }
    if request.extensions().get::<Expectation>().is_none() {
        on_interim(&mut request, |_, _| {});
    }
    let expectation = request.extensions_mut().get_or_insert_default::<Expectation>().clone();
    let met = expectation.met.clone();
    let request = request.map(|body| {
        let patience = async move { drop(tokio::time::timeout(PATIENCE, met.notified()).await) };
        Held { body, until: Some(Box::pin(patience)), expectation: expectation.clone() }.boxed()
    });
    (request, Some(expectation))
}

struct Held {
    body: Body,
    until: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    expectation: Expectation,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(until) = &mut self.until {
            ready!(until.as_mut().poll(context));
            self.until = None;
        }
        if !self.expectation.is_wanted() {
            return Poll::Pending;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
