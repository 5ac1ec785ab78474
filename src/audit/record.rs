//! The shape of one line.

use crate::host::Host;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, net::IpAddr};

/// One request or relayed connection, as the line in the file has it; what is unset is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it began: RFC 3339, UTC, milliseconds.
    #[serde(with = "milliseconds")]
    pub ts: Timestamp,
    /// The run that it belongs to.
    pub run: String,
    /// Counts from 1 in each run.
    pub id: u64,
    /// `tls`, `http/1.1`, `h2`, `tcp`, `dns`.
    pub protocol: Cow<'static, str>,
    #[serde(with = "text")]
    pub host: Host,
    pub port: u16,
    /// The address that the child had chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Without query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub decision: Verdict,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The response's status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes from the child.
    pub sent: u64,
    /// Bytes to the child.
    pub received: u64,
    /// How often the injected credential came back and was overwritten.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scrubbed: u64,
    /// From beginning to end, milliseconds.
    pub ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Blame>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Injected,
    Forwarded,
    Denied,
    Refused,
    Failed,
}

/// Whose doing an error was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    Downstream,
    Upstream,
    Internal,
}

/// Text by `Display` and `FromStr`.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::{borrow::Cow, fmt::Display, str::FromStr};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

mod milliseconds {
    pub use super::text::deserialize;
    use jiff::Timestamp;
    use serde::Serializer;

    pub fn serialize<S: Serializer>(ts: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{ts:.3}"))
    }
}
