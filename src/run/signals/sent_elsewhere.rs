//! Signals without their sender (sigwait(2)).

use std::{io, thread};

use nix::sys::signal::{SigSet, Signal};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::block;

/// The terminal sends these to the command as well, and nothing tells whether it was the terminal: they are not passed on.
const OF_THE_TERMINAL: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

/// The supervisor's signals. The command starts with an empty mask.
pub struct Signals(SigSet);

impl Signals {
    pub fn block() -> nix::Result<Self> {
        Ok(Self(block()?))
    }

    pub fn watch(self) -> io::Result<Sent> {
        let (tell, signals) = mpsc::unbounded_channel();
        let wait = move || {
            while let Ok(signal) = self.0.wait() {
                if !OF_THE_TERMINAL.contains(&signal) && tell.send(signal as i32).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
        Ok(Sent(signals))
    }
}

/// The supervisor's signals as a stream.
pub struct Sent(UnboundedReceiver<i32>);

impl Sent {
    pub async fn next(&mut self) -> io::Result<i32> {
        self.0.recv().await.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
