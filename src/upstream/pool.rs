//! Verified connections to use again.

use super::{
    Destination, Protocol,
    connection::{Connection, H2, Http1, Limit, Opened},
    queue::{Queue, Waiting},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a connection may wait for its next request; common servers close theirs after 60 to 120 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Idle HTTP/1.1 connections kept per destination; more are closed. Above what a busy client has under way at once: below that each burst of
/// answers closes connections that the next requests open again, and a handshake costs as much as ten requests.
const IDLE_CAP: usize = 512;
/// How often expired connections are looked for.
pub const SWEEP: Duration = Duration::from_secs(30);

/// One [`Entry`] for every destination in use.
#[derive(Default)]
pub struct Pool {
    entries: Mutex<HashMap<Destination, Arc<Entry>>>,
}

/// The connections to one destination.
#[derive(Default)]
pub struct Entry {
    pub limit: Arc<Limit>,
    /// Of requests that need a connection each; the others wait with `limit`.
    queue: Queue,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Most recently used last.
    idle: Vec<(Instant, Http1)>,
    h2: Vec<H2>,
    speaks: Option<Protocol>,
    used: Option<Instant>,
}

impl Pool {
    pub fn entry(&self, destination: &Destination) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(destination) {
            return entry.clone();
        }
        entries.entry(destination.clone()).or_default().clone()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// After a failure: a destination to which there is no connection takes no room.
    pub fn forget(&self, destination: &Destination) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.get(destination).is_some_and(|entry| entry.is_empty()) {
            entries.remove(destination);
        }
    }

    /// Closes what has been idle for too long and forgets destinations without a connection.
    pub fn sweep(&self, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Another owner is a request that may be about to put its connection in.
        entries.retain(|_, entry| !entry.expire(now) || Arc::strong_count(entry) > 1);
    }
}

impl Entry {
    /// Joins those who wait for a connection, with `share` for one that they can share.
    pub fn wait(self: &Arc<Self>, share: bool) -> Waiting {
        Waiting::new(self.clone(), share)
    }

    pub fn queue(&self, share: bool) -> &Queue {
        if share { &self.limit.queue } else { &self.queue }
    }

    /// What the destination spoke last time, when `h2` was offered.
    pub fn speaks(&self) -> Option<Protocol> {
        self.state().speaks
    }

    pub fn learn(&self, protocol: Protocol) {
        self.state().speaks = Some(protocol);
    }

    pub fn has_idle(&self) -> bool {
        self.state().idle.iter_mut().any(|(_, connection)| connection.is_ready())
    }

    /// A live connection for one request: with `h2` a shared HTTP/2 one that has a stream free, else the HTTP/1.1 one used last.
    /// An HTTP/2 request goes over HTTP/1.1 only where the destination is known to speak nothing else.
    pub fn take(&self, h2: bool) -> Option<Connection> {
        let mut state = self.state();
        state.used = Some(Instant::now());
        if h2 {
            state.h2.retain(|shared| !shared.is_closed());
            if let Some(connection) = state.h2.iter().find_map(H2::lease) {
                return Some(connection);
            }
            if state.speaks != Some(Protocol::Http1) {
                return None;
            }
        }
        while let Some((since, mut connection)) = state.idle.pop() {
            if since.elapsed() < IDLE_TIMEOUT && connection.is_ready() {
                return Some(Connection::Http1(connection));
            }
        }
        None
    }

    /// The HTTP/2 connections that there are.
    pub fn shared(&self) -> Vec<H2> {
        let mut state = self.state();
        state.used = Some(Instant::now());
        state.h2.iter().filter(|shared| !shared.is_closed()).cloned().collect()
    }

    /// An HTTP/1.1 connection that is done with its last request.
    pub fn put(&self, connection: Http1) {
        let mut state = self.state();
        let now = Instant::now();
        state.used = Some(now);
        state.idle.push((now, connection));
        if state.idle.len() > IDLE_CAP {
            state.idle.remove(0);
        }
        drop(state);
        self.wake();
    }

    /// A new connection for whoever comes first.
    pub fn keep(&self, opened: Opened) -> Protocol {
        match opened {
            Opened::Http1(connection) => {
                self.put(connection);
                Protocol::Http1
            }
            Opened::H2(shared) => {
                self.share(shared);
                Protocol::H2
            }
        }
    }

    /// A new HTTP/2 connection to share.
    pub fn share(&self, shared: H2) {
        let mut state = self.state();
        state.used = Some(Instant::now());
        state.h2.push(shared);
        drop(state);
        self.wake();
    }

    /// HTTP/2 requests go over HTTP/1.1 where there is nothing else, so both may have use for what has come.
    fn wake(&self) {
        self.queue.wake();
        self.limit.queue.wake();
    }

    /// Drops what is too old; whether nothing is left.
    fn expire(&self, now: Instant) -> bool {
        let mut state = self.state();
        let old = |since: Instant| now.duration_since(since) >= IDLE_TIMEOUT;
        let unused = state.used.is_none_or(old);
        state.idle.retain_mut(|(since, connection)| !old(*since) && connection.is_ready());
        state.h2.retain(|shared| !(shared.is_closed() || (unused && shared.is_unused())));
        state.idle.is_empty() && state.h2.is_empty() && unused
    }

    fn is_empty(&self) -> bool {
        let state = self.state();
        state.idle.is_empty() && state.h2.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
