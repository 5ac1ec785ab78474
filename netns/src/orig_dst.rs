//! Where a redirected connection was going (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST).
use std::{net::SocketAddr, os::fd::AsFd};

/// The destination a client connected to before the kernel redirected it. Made only by [`orig_dst`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrigDst(SocketAddr);

impl OrigDst {
    pub fn addr(self) -> SocketAddr {
        self.0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OrigDstError {
    #[error("read the original destination: {0}")]
    Unknown(#[source] nix::errno::Errno),
    #[error("original destination {0} is not one a connection can be redirected from")]
    Refused(SocketAddr),
}

/// The original destination of an accepted, redirected stream. Refused: loopback, unspecified, link-local, multicast,
/// broadcast, and the listener's own address.
pub fn orig_dst(_stream: &impl AsFd) -> Result<OrigDst, OrigDstError> {
    todo!()
}
