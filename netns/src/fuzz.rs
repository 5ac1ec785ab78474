//! The parsers of what the kernel and other programs' rules say, as the fuzzer calls them. Only built for it.

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;

use crate::{
    netlink::{explanation, messages},
    nft::query::{attributes, comment, may_drop},
};

/// A datagram of replies, a refusal's explanation, and the rule of another program: nothing panics.
pub fn netlink(bytes: &[u8]) {
    for message in messages(bytes) {
        let _ = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message);
        if let Ok(header) = NetlinkBuffer::new_checked(message) {
            let _ = explanation(header.flags(), header.payload());
        }
    }
    let _ = (comment(bytes), attributes(bytes).filter(|(_, expression)| may_drop(expression)).count());
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(inner) = text.parse::<crate::uplink::Inner>() {
        assert!(inner.to_string().parse::<crate::uplink::Inner>().is_ok());
    }
}
