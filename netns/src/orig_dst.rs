//! Where a redirected connection was going (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST).

use nix::sys::socket::{SockaddrStorage, getsockname, getsockopt, sockopt};
use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
};

/// The destination a client connected to before the kernel redirected it. Made only by [`orig_dst`]. An IPv4 address is always in its IPv4 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrigDst(SocketAddr);

impl OrigDst {
    pub fn addr(self) -> SocketAddr {
        self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrigDstError {
    /// ENOENT: the kernel tracks no such connection. ENOPROTOOPT: not a TCP socket, or no connection tracking in this kernel.
    #[error("read the original destination: {0}")]
    Unknown(#[source] nix::errno::Errno),
    #[error("original destination {0} is not one a connection can be redirected from")]
    Refused(SocketAddr),
}

/// The original destination of an accepted, redirected stream. Refused: loopback, unspecified, link-local, multicast,
/// broadcast, and the listener's own address (what a connection shows that was not redirected at all).
pub fn orig_dst(stream: &impl AsFd) -> Result<OrigDst, OrigDstError> {
    let local: SockaddrStorage = getsockname(stream.as_fd().as_raw_fd()).map_err(OrigDstError::Unknown)?;
    let (destination, listener): (SocketAddr, SocketAddr) = match (local.as_sockaddr_in(), local.as_sockaddr_in6()) {
        (Some(local), _) => {
            let raw = getsockopt(stream, sockopt::OriginalDst).map_err(OrigDstError::Unknown)?;
            (SocketAddrV4::from(nix::sys::socket::SockaddrIn::from(raw)).into(), SocketAddrV4::from(*local).into())
        }
        (_, Some(local)) => {
            let raw = getsockopt(stream, sockopt::Ip6tOriginalDst).map_err(OrigDstError::Unknown)?;
            (SocketAddrV6::from(nix::sys::socket::SockaddrIn6::from(raw)).into(), SocketAddrV6::from(*local).into())
        }
        _ => return Err(OrigDstError::Unknown(nix::errno::Errno::EAFNOSUPPORT)),
    };
    admit(destination, listener)
}

/// The rule alone: may a connection that arrived at `listener` have been going to `destination`?
fn admit(destination: SocketAddr, listener: SocketAddr) -> Result<OrigDst, OrigDstError> {
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    let listener = SocketAddr::new(listener.ip().to_canonical(), listener.port());
    let refused = destination == listener
        || destination.port() == 0
        || match destination.ip() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.octets()[0] == 0 || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast(),
        };
    if refused { Err(OrigDstError::Refused(destination)) } else { Ok(OrigDst(destination)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn refuses_what_cannot_have_been_redirected() {
        for text in [
            "127.0.0.1:443",
            "127.255.255.254:443",
            "0.0.0.0:443",
            "0.1.2.3:443",
            "169.254.169.254:80",
            "224.0.0.1:443",
            "239.255.255.255:443",
            "255.255.255.255:443",
            "203.0.113.7:0",
            "[::1]:443",
            "[::]:443",
            "[fe80::1]:443",
            "[febf::1]:443",
            "[ff02::1]:443",
            "[::ffff:127.0.0.1]:443",
            "[::ffff:169.254.169.254]:80",
            "[::ffff:0.0.0.0]:80",
            "[::ffff:203.0.113.1]:3128",
            "203.0.113.1:3128",
        ] {
            assert!(matches!(admit(addr(text), addr("203.0.113.1:3128")), Err(OrigDstError::Refused(_))), "{text}");
        }
        let listener = addr("[::ffff:203.0.113.1]:3128");
        assert_eq!(admit(addr("203.0.113.1:3128"), listener), Err(OrigDstError::Refused(addr("203.0.113.1:3128"))));
    }

    #[test]
    fn admits_other_addresses_in_canonical_form() {
        for (text, canonical) in [
            ("203.0.113.7:443", "203.0.113.7:443"),
            ("10.0.0.1:22", "10.0.0.1:22"),
            ("203.0.113.1:443", "203.0.113.1:443"),
            ("[2001:db8::7]:443", "[2001:db8::7]:443"),
            ("[fec0::1]:443", "[fec0::1]:443"),
            ("[fd20:ce::254]:80", "[fd20:ce::254]:80"),
            ("[::ffff:203.0.113.7]:443", "203.0.113.7:443"),
        ] {
            assert_eq!(admit(addr(text), addr("203.0.113.1:3128")), Ok(OrigDst(addr(canonical))), "{text}");
        }
    }

    #[test]
    fn a_connection_that_was_not_redirected_has_no_original_destination() {
        for listener in [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap()] {
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            assert!(orig_dst(&stream).is_err());
        }
    }
}
