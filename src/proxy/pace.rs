//! How often a relay looks at its source.
//!
//! Each segment that arrives would wake the relay, whose core sleeps: an interrupt to another core for every 16 KiB, which costs the sender more
//! than sending them, and a client that is woken for as little. While a source is fast, the relay is therefore told only of more at once; the
//! time limit sees to what is less.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

/// A source is fast that has sent this much in that time (128 MiB per second).
const FAST: u64 = 8 << 20;
const FAST_WITHIN: Duration = Duration::from_millis(62);

/// Octets that a fast source is waited for.
const BULK: u32 = 256 * 1024;

/// How long they are waited for; the end of what a fast source has to say is late by as much, once. What tokio's timer can do.
const PATIENCE: Duration = Duration::from_millis(1);

/// Octets of one such wait below which a source is fast no longer.
const SLOW: u64 = 128 * 1024;

/// Why a relay looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// The source is readable.
    Readable,
    /// It may be, with less than it was waited for.
    Due,
}

/// The pace of one source.
pub struct Pace<'a> {
    source: &'a TcpStream,
    since: Instant,
    octets: u64,
    fast: bool,
}

impl<'a> Pace<'a> {
    pub fn new(source: &'a TcpStream) -> Self {
        Self { source, since: Instant::now(), octets: 0, fast: false }
    }

    pub fn is_fast(&self) -> bool {
        self.fast
    }

    /// Until it is worth a look.
    pub async fn wait(&self) -> io::Result<Wake> {
        if !self.fast {
            return self.source.readable().await.map(|()| Wake::Readable);
        }
        match timeout(PATIENCE, self.source.readable()).await {
            Ok(readable) => readable.map(|()| Wake::Readable),
            Err(_) => Ok(Wake::Due),
        }
    }

    /// What a look came to.
    pub fn moved(&mut self, wake: Wake, octets: u64) {
        if self.fast {
            if wake == Wake::Due && octets < SLOW {
                self.set_fast(false);
            }
            return;
        }
        self.octets += octets;
        if self.octets >= FAST {
            let now = Instant::now();
            self.set_fast(now.saturating_duration_since(self.since) <= FAST_WITHIN);
            (self.octets, self.since) = (0, now);
        }
    }

    /// Where the mark cannot be set, every octet counts.
    fn set_fast(&mut self, fast: bool) {
        if fast != self.fast {
            let mark = if fast { BULK } else { 1 };
            self.fast = netns::set_receive_low_water(self.source, mark).is_ok() && fast;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{
        opaque::{Burst, tests::pair},
        splice::Pipe,
    };
    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Both ends of a connection whose window is open as after much has passed. While it is no larger than a segment, the kernel tells of less.
    async fn open_pair() -> (TcpStream, TcpStream) {
        let (mut source, mut from) = pair().await;
        SockRef::from(&from).set_recv_buffer_size(16 * BULK as usize).unwrap();
        let (mut passed, sent) = (vec![0; 8 * BULK as usize], vec![0; 8 * BULK as usize]);
        let (wrote, read) = tokio::join!(source.write_all(&sent), from.read_exact(&mut passed));
        wrote.unwrap();
        read.unwrap();
        assert_eq!(from.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        (source, from)
    }

    #[tokio::test]
    async fn a_fast_source_wakes_with_much_at_once_and_the_rest_when_it_is_due() {
        let ((mut source, from), (to, mut sink)) = (open_pair().await, pair().await);
        let mut pace = Pace::new(&from);
        source.write_all(b"a").await.unwrap();
        assert_eq!(pace.wait().await.unwrap(), Wake::Readable, "the first octet of a slow source");
        assert_eq!(from.try_read(&mut [0; 2]).unwrap(), 1);
        assert_eq!(from.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        pace.set_fast(true);
        source.write_all(&[b'b'; 1000]).await.unwrap();
        assert_eq!(pace.wait().await.unwrap(), Wake::Due);
        let mut moved = 0;
        let burst = Pipe::take().unwrap().burst(Wake::Due, &from, &to, |n| moved += n).await;
        assert!(matches!(burst, Ok(Some(Burst::Moved))));
        assert_eq!(moved, 1000, "what tokio has not been told of");
        sink.read_exact(&mut [0; 1000]).await.unwrap();

        let much = vec![b'c'; BULK as usize];
        let (sent, wake) = tokio::join!(source.write_all(&much), async {
            loop {
                if pace.wait().await.unwrap() == Wake::Readable {
                    break Wake::Readable;
                }
            }
        });
        sent.unwrap();
        assert_eq!(wake, Wake::Readable);
    }

    #[tokio::test]
    async fn a_source_that_slows_down_is_told_of_what_is_there_and_of_each_octet_from_then_on() {
        let (mut source, from) = open_pair().await;
        let mut pace = Pace::new(&from);
        pace.set_fast(true);
        source.write_all(b"few").await.unwrap();
        assert_eq!(pace.wait().await.unwrap(), Wake::Due);
        pace.moved(Wake::Due, 0);
        assert!(!pace.is_fast());
        assert_eq!(pace.wait().await.unwrap(), Wake::Readable);
    }

    #[tokio::test]
    async fn the_end_of_a_fast_source_is_told_of_at_once() {
        let (mut source, from) = open_pair().await;
        let mut pace = Pace::new(&from);
        pace.set_fast(true);
        source.write_all(b"few").await.unwrap();
        source.shutdown().await.unwrap();
        assert_eq!(pace.wait().await.unwrap(), Wake::Readable);
    }

    #[tokio::test]
    async fn fast_is_what_sends_much_within_little_time() {
        let (_source, from) = pair().await;
        let mut pace = Pace::new(&from);
        pace.moved(Wake::Readable, FAST - 1);
        assert!(!pace.is_fast());
        pace.since -= FAST_WITHIN * 2;
        pace.moved(Wake::Readable, 1);
        assert!(!pace.is_fast(), "as much in twice the time");
        pace.since += Duration::from_secs(3600);
        pace.moved(Wake::Readable, FAST);
        assert!(pace.is_fast());
        pace.moved(Wake::Readable, 1);
        assert!(pace.is_fast(), "it was woken by enough");
        pace.moved(Wake::Due, SLOW);
        assert!(pace.is_fast());
        pace.moved(Wake::Due, SLOW - 1);
        assert!(!pace.is_fast());
    }
}
