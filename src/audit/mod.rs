//! The owner's trail: exactly one JSON line per request or relayed connection.
use crate::{host::Target, provider::ProviderName};
use std::{net::IpAddr, path::Path, sync::Arc};

/// Appends records to `log/audit.jsonl`; cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<()>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Injected,
    Forwarded,
    Denied,
    Refused,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    Downstream,
    Upstream,
    Internal,
}

/// One request or relayed connection under way. Whatever happens, dropping it writes exactly one record.
pub struct Guard {}

impl Log {
    /// Opens (creating 0600, appending) without blocking the data plane afterwards. `run`: the run's id.
    pub fn open(_path: &Path, _run: &str) -> std::io::Result<Self> {
        todo!()
    }
    /// Starts a record. `protocol`: `tls`, `http/1.1`, `h2`, `tcp`, `dns`.
    pub fn begin(&self, _protocol: &'static str, _target: Target, _addr: Option<IpAddr>) -> Guard {
        todo!()
    }
    /// Everything begun and dropped before this call is on disk when it returns.
    pub fn flush(&self) -> std::io::Result<()> {
        todo!()
    }
}

impl Guard {
    /// Method and path as the child sent it; the query is cut here.
    pub fn request(&mut self, _method: &str, _path: &str) {
        todo!()
    }
    pub fn verdict(&mut self, _verdict: Verdict, _reason: impl Into<String>) {
        todo!()
    }
    pub fn provider(&mut self, _provider: &ProviderName) {
        todo!()
    }
    pub fn status(&mut self, _status: u16) {
        todo!()
    }
    /// Adds to the counts: bytes from the child, bytes to the child.
    pub fn bytes(&mut self, _sent: u64, _received: u64) {
        todo!()
    }
    /// Something went wrong on that side; the first blame stays.
    pub fn blame(&mut self, _blame: Blame, _error: impl Into<String>) {
        todo!()
    }
}
