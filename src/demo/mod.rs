//! `authsome demo`: the whole product on a small internet of its own, with nothing of this machine changed and no account needed.
//!
//! A namespace plays the machine, another the internet with a real HTTPS server called `api.demo.test`. The machine stores a made-up key and
//! runs a client that knows no proxy; what the client sent, what the server received and what the client could find of the key are compared.

mod client;
#[cfg(target_os = "linux")]
mod origin;
#[cfg_attr(not(target_os = "linux"), path = "elsewhere.rs")]
mod stage;

use std::{fmt, io};

use serde::{Deserialize, Serialize};

pub use client::main as client;

/// The name the demonstration's server has a certificate for.
pub const HOST: &str = "api.demo.test";
/// Every made-up key begins like this, so that the client can look for one without having been told it.
pub const KEY_PREFIX: &str = "demo-key-";

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error(transparent)]
    Gate(netns::Gate),
    #[error("the demonstration needs Linux, which alone has network namespaces")]
    LinuxOnly,
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    #[error("the demonstration failed: {0}")]
    Failed(String),
}

/// What the two sides saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The `Authorization` header as the client wrote it.
    pub sent: String,
    /// The same header as the server received it.
    pub received: String,
    /// The key that was stored.
    pub key: String,
    /// Every place the client searched for it.
    pub searched: Vec<String>,
    /// Where it was found; empty if all is well.
    pub found: Vec<String>,
    /// The response as the client saw it.
    pub status: u16,
}

impl Evidence {
    /// Whether everything the demonstration promises was seen.
    pub fn holds(&self) -> bool {
        self.received == format!("Bearer {}", self.key) && !self.sent.contains(&self.key) && self.found.is_empty() && self.status == 200
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "client sent       GET https://{HOST}/v1/hello")?;
        writeln!(f, "                  authorization: {}", self.sent)?;
        writeln!(f, "server received   GET /v1/hello")?;
        writeln!(f, "                  authorization: {}", self.received)?;
        writeln!(f, "client saw        HTTP {}", self.status)?;
        writeln!(f, "client searched   {}", self.searched.join(", "))?;
        match self.found.as_slice() {
            [] => writeln!(f, "                  and found nothing of the key"),
            found => writeln!(f, "                  and FOUND THE KEY in {}", found.join(", ")),
        }
    }
}

/// Runs the demonstration. The calling process must have a single thread.
pub fn run() -> Result<Evidence, DemoError> {
    stage::run()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        Evidence {
            sent: "Bearer authsome-proxy-managed".into(),
            received: "Bearer demo-key-1".into(),
            key: "demo-key-1".into(),
            searched: vec!["environment".into()],
            found: vec![],
            status: 200,
        }
    }

    #[test]
    fn holds_only_if_every_part_does() {
        assert!(good().holds());
        for broken in [
            Evidence { received: "Bearer authsome-proxy-managed".into(), ..good() },
            Evidence { sent: "Bearer demo-key-1".into(), ..good() },
            Evidence { found: vec!["/proc/1/environ".into()], ..good() },
            Evidence { status: 502, ..good() },
        ] {
            assert!(!broken.holds(), "{broken:?}");
        }
    }
}
