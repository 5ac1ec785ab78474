//! Exactly one record for each thing under way.

use super::{Blame, Log, Record, Verdict};
use crate::{host::Target, provider::ProviderName};
use jiff::Timestamp;
use std::{borrow::Cow, net::IpAddr, time::Instant};

/// The longest text from outside that goes into a record, in characters; the child chooses paths, servers choose error texts.
const MAX_TEXT: usize = 1024;

/// One request or relayed connection under way. Whatever happens, dropping it writes exactly one record.
pub struct Guard {
    log: Log,
    started: Instant,
    /// Taken by the drop.
    record: Option<Box<Record>>,
}

impl Guard {
    pub(super) fn begin(log: Log, id: u64, protocol: &'static str, target: Target, addr: Option<IpAddr>) -> Self {
        let record = Record {
            ts: Timestamp::now(),
            run: log.run().to_owned(),
            id,
            protocol: Cow::Borrowed(protocol),
            host: target.host,
            port: target.port,
            addr,
            method: None,
            path: None,
            decision: Verdict::Failed,
            reason: "aborted".to_owned(),
            provider: None,
            status: None,
            sent: 0,
            received: 0,
            scrubbed: 0,
            ms: 0,
            blame: None,
            error: None,
        };
        Self { log, started: Instant::now(), record: Some(Box::new(record)) }
    }

    /// Method and path as the child sent it, that is before anything was injected; the query is cut here.
    pub fn request(&mut self, method: &str, path: &str) {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        self.change(|record| {
            record.method = Some(cut(method));
            record.path = Some(cut(path));
        });
    }

    /// What became of it; the last one stands. Without any it is [`Verdict::Failed`], `aborted`.
    pub fn verdict(&mut self, verdict: Verdict, reason: impl Into<String>) {
        let reason = cut(&reason.into());
        self.change(|record| {
            record.decision = verdict;
            record.reason = reason;
        });
    }

    pub fn provider(&mut self, provider: &ProviderName) {
        self.change(|record| record.provider = Some(provider.as_str().to_owned()));
    }

    pub fn status(&mut self, status: u16) {
        self.change(|record| record.status = Some(status));
    }

    /// Adds to the counts: bytes from the child, bytes to the child.
    pub fn bytes(&mut self, sent: u64, received: u64) {
        self.change(|record| {
            record.sent = record.sent.saturating_add(sent);
            record.received = record.received.saturating_add(received);
        });
    }

    /// How often the injected credential was overwritten, or the response cut because of it.
    pub fn scrubbed(&mut self, hits: u64) {
        self.change(|record| record.scrubbed = hits);
    }

    /// Something went wrong on that side; the first blame stays.
    pub fn blame(&mut self, blame: Blame, error: impl Into<String>) {
        self.change(|record| {
            if record.blame.is_none() {
                record.blame = Some(blame);
                record.error = Some(cut(&error.into()));
            }
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.blame(Blame::Internal, "panicked");
        }
        if let Some(mut record) = self.record.take() {
            record.ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.log.write(&record);
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
