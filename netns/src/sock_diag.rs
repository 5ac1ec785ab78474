//! Whose a TCP connection's end on this machine is, by sock_diag(7).

use std::net::{IpAddr, SocketAddr};

use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::errno::Errno;

use crate::{
    error::Result,
    netlink::{Netlink, Refusal},
};

/// INET_DIAG_NOCOOKIE of linux/inet_diag.h in both words: whichever socket is at these addresses.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Of a connection's end: what /proc/PID/fd calls it, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// 0: no process has it (any more, or yet).
    pub inode: u64,
    /// As the calling process's user namespace knows it.
    pub uid: u32,
}

/// The end of a TCP connection of this network namespace that is bound to `local` and connected to `remote`. IPv4 addresses stand for mapped ones
/// of IPv6 sockets, too. Errors with what the kernel answers: ENOENT where there is none, but also where the kernel has no inet_diag.
pub fn tcp(local: SocketAddr, remote: SocketAddr) -> Result<Socket> {
    let failed = |refusal: Refusal| refusal.into_error(format!("look up the socket {local} that is connected to {remote}"));
    let id = SocketId {
        source_port: local.port(),
        destination_port: remote.port(),
        source_address: local.ip(),
        destination_address: remote.ip(),
        interface_id: 0,
        cookie: NO_COOKIE,
    };
    let request = InetRequest {
        family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: id,
    };
    let answer = Netlink::open(NETLINK_SOCK_DIAG).and_then(|netlink| netlink.ask(SockDiagMessage::InetRequest(request))).map_err(failed)?;
    match answer {
        // Where no connection has these addresses the kernel takes a listener at `local`.
        SockDiagMessage::InetResponse(found) if is_between(&found.header, local, remote) => {
            Ok(Socket { inode: found.header.inode.into(), uid: found.header.uid })
        }
        _ => Err(failed(Errno::ENOENT.into())),
    }
}

fn is_between(found: &InetResponseHeader, local: SocketAddr, remote: SocketAddr) -> bool {
    let id = &found.socket_id;
    let end = |ip: IpAddr, port| (ip.to_canonical(), port);
    end(id.source_address, id.source_port) == end(local.ip(), local.port())
        && end(id.destination_address, id.destination_port) == end(remote.ip(), remote.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::fstat;
    use std::net::{TcpListener, TcpStream};

    fn connection(listen: &str, connect: &str) -> (TcpListener, TcpStream, SocketAddr, SocketAddr) {
        let listener = TcpListener::bind(listen).unwrap();
        let client = TcpStream::connect((connect, listener.local_addr().unwrap().port())).unwrap();
        let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        (listener, client, local, remote)
    }

    #[test]
    fn both_families_and_mapped_addresses() {
        for (listen, connect) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("127.0.0.1:0", "::ffff:127.0.0.1")] {
            let (_listener, client, local, remote) = connection(listen, connect);
            let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
            let found = tcp(canonical(local), canonical(remote)).unwrap();
            let inode = fstat(&client).unwrap().st_ino;
            assert_eq!(found, Socket { inode, uid: nix::unistd::geteuid().as_raw() }, "{connect}");
        }
    }

    #[test]
    fn only_the_very_connection() {
        let (_listener, _client, local, remote) = connection("127.0.0.1:0", "127.0.0.1");
        let gone = |local, remote| tcp(local, remote).unwrap_err().source == Errno::ENOENT;
        let other = SocketAddr::new(local.ip(), remote.port() ^ 1);
        assert!(gone(local, other));
        // The kernel offers the listener.
        assert!(gone(remote, other));
    }
}
