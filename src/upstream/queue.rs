//! Requests that wait for a connection: for one that is being opened, or for what others give back meanwhile. A server that serves only so many
//! connections at a time finishes no further handshake while the pool holds them all.

use super::pool::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, futures::Notified};

/// Nobody is woken in vain for long: whoever leaves wakes the next, who finds something or waits on.
#[derive(Default)]
pub struct Queue {
    changed: Notify,
    count: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    waiting: usize,
    opening: usize,
}

/// One that waits.
pub struct Waiting {
    entry: Arc<Entry>,
    share: bool,
}

/// A connection that is being opened.
pub struct Opening {
    entry: Arc<Entry>,
    share: bool,
}

impl Queue {
    /// One of those who wait looks again.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    pub fn new(entry: Arc<Entry>, share: bool) -> Self {
        entry.queue(share).count().waiting += 1;
        Self { entry, share }
    }

    /// To be asked for before one looks, so that nothing is missed.
    pub fn woken(&self) -> Notified<'_> {
        self.entry.queue(self.share).changed.notified()
    }

    /// Leave to open one more: one for all who can share it, else one for each. Those that were begun for others who needed them no more count.
    pub fn open(&self) -> Option<Opening> {
        let mut count = self.entry.queue(self.share).count();
        let enough = if self.share { 1 } else { count.waiting };
        (count.opening < enough).then(|| {
            count.opening += 1;
            Opening { entry: self.entry.clone(), share: self.share }
        })
    }
}

impl Opening {
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let queue = self.entry.queue(self.share);
        queue.count().waiting -= 1;
        queue.wake();
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let queue = self.entry.queue(self.share);
        queue.count().opening -= 1;
        queue.wake();
    }
}
