//! A child that has said all it will say (RFC 8446 §6.1), of which the server is told as it would be without us: most servers take that for the
//! client's leaving and give up its request, some still answer.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// An extension of a child's requests in HTTP/1.1.
#[derive(Debug, Clone, Default)]
pub struct Farewell(Arc<AtomicBool>);

impl Farewell {
    pub fn say(&self) {
        self.0.store(true, Relaxed);
    }

    pub fn is_said(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The child whose request a connection carries, if any. Of the task that drives the connection.
#[derive(Clone, Default)]
pub struct Child(Arc<Mutex<Option<Speaker>>>);

struct Speaker {
    farewell: Farewell,
    /// Held by what is left of the request.
    unsent: Weak<()>,
}

impl Child {
    pub fn asks(&self, farewell: Farewell, unsent: Weak<()>) {
        *self.lock() = Some(Speaker { farewell, unsent });
    }

    /// Whether all of its request has been said, and nothing will follow.
    pub fn has_left(&self) -> bool {
        self.lock().as_ref().is_some_and(|child| child.farewell.is_said() && child.unsent.strong_count() == 0)
    }

    /// Its request is done with; whether it was still there.
    pub fn forget(&self) -> bool {
        self.lock().take().is_none_or(|child| !child.farewell.is_said())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Speaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
