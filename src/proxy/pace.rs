//! How often a relay looks at its source.
//!
//! Each segment that arrives wakes a relay that waits for it, which is an interrupt to another core for every 16 KiB: it costs the sender more than
//! sending them, and the client is woken for as little. So a relay does not wait for a fast source, but looks at it every so often. (SO_RCVLOWAT
//! would do the same, but has each segment acknowledged at once, which costs the sender a third of that again.)

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A source is fast that has sent this much in that time (128 MiB per second).
const FAST: usize = 4 << 20;
const FAST_WITHIN: Duration = Duration::from_millis(31);

/// How often a fast source is looked at. The end of what it has to say is late by as much, once.
const PAUSE: Duration = Duration::from_micros(300);

/// Octets since the last look below which a source is slow, at about the same rate; and how many such looks in a row it takes. It may share its
/// core with the client, which then has its turn.
const SLOW: usize = 32 * 1024;
const SLOW_LOOKS: u32 = 8;

/// How much a source sends.
pub struct Pace {
    since: Instant,
    octets: usize,
    slow_looks: u32,
}

impl Pace {
    pub fn new() -> Self {
        Self { since: Instant::now(), octets: 0, slow_looks: 0 }
    }

    /// Counts octets; whether the source is fast.
    pub fn is_fast_with(&mut self, octets: usize) -> bool {
        self.octets += octets;
        if self.octets < FAST {
            return false;
        }
        let now = Instant::now();
        let fast = now.saturating_duration_since(self.since) <= FAST_WITHIN;
        *self = Self { since: now, octets: 0, slow_looks: 0 };
        fast
    }

    /// Counts a look at a fast source; whether it is fast no longer.
    pub fn is_slow_with(&mut self, octets: usize) -> bool {
        self.slow_looks = if octets < SLOW { self.slow_looks + 1 } else { 0 };
        let slow = self.slow_looks >= SLOW_LOOKS;
        if slow {
            *self = Self::new();
        }
        slow
    }
}

/// The timer between two looks. tokio's own counts milliseconds, in which a fast source fills all buffers.
pub struct Pause(AsyncFd<Timer>);

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Pause {
    /// The deprecated constructor asks of the type that its descriptor never changes; its successor is `unsafe`.
    #[expect(deprecated)]
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        Ok(Self(AsyncFd::with_interest(Timer(timer), Interest::READABLE)?))
    }

    pub async fn wait(&self) -> io::Result<()> {
        self.0.get_ref().0.set(Expiration::OneShot(TimeSpec::from_duration(PAUSE)), TimerSetTimeFlags::empty())?;
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_is_what_sends_much_within_little_time() {
        let mut pace = Pace::new();
        assert!(!pace.is_fast_with(FAST - 1));
        pace.since -= FAST_WITHIN * 2;
        assert!(!pace.is_fast_with(1), "as much in twice the time");
        pace.since += Duration::from_secs(3600);
        assert!(pace.is_fast_with(FAST));
        assert!(!pace.is_fast_with(FAST - 1), "counted anew");
    }

    #[test]
    fn slow_is_what_sends_little_for_several_looks_in_a_row() {
        let mut pace = Pace::new();
        for _ in 0..2 {
            assert!((1..SLOW_LOOKS).all(|_| !pace.is_slow_with(SLOW - 1)));
            assert!(!pace.is_slow_with(SLOW));
        }
        assert!((1..SLOW_LOOKS).all(|_| !pace.is_slow_with(0)));
        assert!(pace.is_slow_with(0));
    }

    #[tokio::test]
    async fn a_pause_ends_as_often_as_it_is_made() {
        let pause = Pause::new().unwrap();
        for _ in 0..3 {
            let begun = Instant::now();
            pause.wait().await.unwrap();
            assert!(begun.elapsed() >= PAUSE);
        }
    }
}
