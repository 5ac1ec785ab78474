//! One synchronous netlink(7) exchange: requests out, answers and acknowledgements in. No thread, no runtime, no waiting: the kernel has
//! answered by the time send(2) returns.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::Socket;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::Error;

/// `struct nlmsghdr` in bytes, netlink(7).
const HEADER_LEN: usize = 16;
/// NLMSGERR_ATTR_MSG of linux/netlink.h: the kernel's explanation, a NUL-terminated string.
const NLMSGERR_ATTR_MSG: u16 = 1;

pub(crate) struct Netlink(Socket);

/// What the kernel refused and, if it says so, why.
pub(crate) struct Refusal {
    /// Index of the refused message in what was sent.
    pub index: usize,
    pub errno: Errno,
    /// The extended acknowledgement's text.
    pub text: Option<String>,
}

impl Refusal {
    pub fn into_error(self, action: impl Into<String>) -> Error {
        let action = action.into();
        Error { action: self.text.map_or(action.clone(), |text| format!("{action} ({text})")), source: self.errno }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { index: 0, errno, text: None }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)).into()
    }
}

impl Netlink {
    /// A socket in the calling thread's network namespace; `protocol` is one of netlink_sys::protocols.
    pub fn open(protocol: isize) -> Result<Self, Refusal> {
        let socket = Socket::new(protocol)?;
        // Both only make messages shorter and richer; a kernel older than 4.12 does without.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Self(socket))
    }

    /// Asks for one change and waits for its acknowledgement. `flags` are NLM_F_CREATE and the like.
    pub fn change<M: NetlinkSerializable>(&self, message: M, flags: u16) -> Result<(), Refusal> {
        self.send(vec![(message, flags | NLM_F_ACK)])?;
        self.acknowledgement(0)
    }

    /// Sends all messages in one datagram. `acknowledged` is the index of the one whose acknowledgement says that all went well.
    pub fn batch<M: NetlinkSerializable>(&self, messages: Vec<(M, u16)>, acknowledged: usize) -> Result<(), Refusal> {
        self.send(messages)?;
        self.acknowledgement(acknowledged)
    }

    /// Every object that matches the request. Starts again when the kernel says that the list changed while it was read.
    pub fn dump<M: NetlinkSerializable + NetlinkDeserializable + Clone>(&self, request: M) -> Result<Vec<M>, Refusal> {
        loop {
            self.send(vec![(request.clone(), NLM_F_DUMP)])?;
            if let Some(found) = self.dump_parts()? {
                return Ok(found);
            }
        }
    }

    /// The one object that a request is about.
    pub fn ask<M: NetlinkSerializable + NetlinkDeserializable>(&self, request: M) -> Result<M, Refusal> {
        self.send(vec![(request, 0)])?;
        let answer = NetlinkMessage::<M>::deserialize(&self.receive()?).map_err(|_| Errno::EBADMSG)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(inner) => Ok(inner),
            NetlinkPayload::Error(error) => Err(Errno::from_raw(-error.raw_code()).into()),
            _ => Err(Errno::EBADMSG.into()),
        }
    }

    /// From now on this socket has something to read whenever an object of one of the groups changes.
    pub fn watch(&mut self, groups: &[u32]) -> Result<(), Refusal> {
        self.0.bind_auto()?;
        Ok(groups.iter().try_for_each(|group| self.0.add_membership(*group))?)
    }

    /// Returns once something of the watched group has changed since the last call; ETIMEDOUT after `timeout`. What changed is not told.
    pub fn changed(&self, timeout: PollTimeout) -> Result<(), Refusal> {
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(Errno::ETIMEDOUT.into()),
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        match self.receive() {
            // More changed than the socket holds: that something did is all that is asked here.
            Err(Refusal { errno: Errno::ENOBUFS, .. }) => Ok(()),
            received => received.map(|_| ()),
        }
    }

    fn dump_parts<M: NetlinkDeserializable>(&self) -> Result<Option<Vec<M>>, Refusal> {
        let (mut found, mut interrupted) = (Vec::new(), false);
        loop {
            for bytes in messages(&self.receive()?) {
                let message = NetlinkMessage::<M>::deserialize(bytes).map_err(|_| Errno::EBADMSG)?;
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(done) if done.code != 0 => return Err(Errno::from_raw(-done.code).into()),
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(found)),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(Errno::from_raw(-error.raw_code()).into()),
                    _ => {}
                }
            }
        }
    }

    /// The sequence number of a message is its index.
    fn send<M: NetlinkSerializable>(&self, messages: Vec<(M, u16)>) -> Result<(), Refusal> {
        let mut bytes = Vec::new();
        for (index, (inner, flags)) in messages.into_iter().enumerate() {
            let mut header = NetlinkHeader::default();
            header.flags = flags | NLM_F_REQUEST;
            header.sequence_number = index as u32;
            let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(inner));
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        self.0.send(&bytes, 0)?;
        Ok(())
    }

    fn acknowledgement(&self, of: usize) -> Result<(), Refusal> {
        loop {
            for bytes in messages(&self.receive()?) {
                let Ok(header) = NetlinkBuffer::new_checked(bytes) else { return Err(Errno::EBADMSG.into()) };
                if header.message_type() != libc::NLMSG_ERROR as u16 {
                    continue;
                }
                let Some((code, rest)) = header.payload().split_first_chunk() else { return Err(Errno::EBADMSG.into()) };
                let index = header.sequence_number() as usize;
                match i32::from_ne_bytes(*code) {
                    0 if index == of => return Ok(()),
                    0 => {}
                    code => return Err(Refusal { index, errno: Errno::from_raw(-code), text: explanation(header.flags(), rest) }),
                }
            }
        }
    }

    fn receive(&self) -> Result<Vec<u8>, Refusal> {
        loop {
            match self.0.recv_from_full() {
                Ok((bytes, _)) => return Ok(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The messages of one datagram, header included. Stops at anything that is not one.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(rest).ok()?.length() as usize;
        let message = &rest[..length];
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The text attribute behind the capped copy of the refused message.
pub(crate) fn explanation(flags: u16, error: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let copied = if flags & NLM_F_CAPPED != 0 { HEADER_LEN } else { NetlinkBuffer::new_checked(error).ok()?.length() as usize };
    let text = NlasIterator::new(error.get(copied..)?).flatten().find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
    Some(String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned())
}
