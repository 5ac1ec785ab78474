//! Signals with their sender (signalfd(2)).

use std::io;

use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

use super::block;

/// The supervisor's signals. Blocked before the clone: init inherits the mask, the command starts with an empty one.
pub struct Signals(SignalFd);

impl Signals {
    pub fn block() -> nix::Result<Self> {
        Ok(Self(SignalFd::with_flags(&block()?, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The deprecated constructor asks of the type that its descriptor never changes, as a signalfd's does not; its successor is `unsafe`.
    #[expect(deprecated)]
    pub fn watch(self) -> io::Result<Sent> {
        Ok(Sent(AsyncFd::new(self.0)?))
    }
}

/// The supervisor's signals as a stream.
pub struct Sent(AsyncFd<SignalFd>);

impl Sent {
    /// The next signal that a process sent (`si_code` ≤ 0, sigaction(2)); those of the kernel the command has got itself.
    pub async fn next(&mut self) -> io::Result<i32> {
        loop {
            let mut ready = self.0.readable().await?;
            match self.0.get_ref().read_signal()? {
                Some(info) if info.ssi_code <= 0 => return Ok(info.ssi_signo.cast_signed()),
                Some(_) => {}
                None => ready.clear_ready(),
            }
        }
    }
}
