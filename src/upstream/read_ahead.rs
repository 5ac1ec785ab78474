//! Larger reads for TLS: rustls reads at most 4 KiB at a time, five system calls and as many times the socket's lock for each record.

use bytes::{Buf, BytesMut};
use std::{
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Octets read at once from a peer that has more than is asked for.
const READ: usize = 64 * 1024;

/// A stream that reads ahead once a read has filled the buffer that it was given, and until one would not have. So a connection that is idle or
/// carries small messages holds no buffer.
pub struct ReadAhead<S> {
    stream: S,
    ahead: BytesMut,
    /// Whether the peer seems to have more than is asked for.
    more: bool,
}

impl<S> ReadAhead<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: BytesMut::new(), more: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = buffer.remaining();
        if this.ahead.is_empty() && !this.more {
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            this.more = room > 0 && buffer.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        if this.ahead.is_empty() {
            this.ahead.reserve(READ);
            let Poll::Ready(read) = pin!(this.stream.read_buf(&mut this.ahead)).poll(context) else {
                this.ahead = BytesMut::new();
                return Poll::Pending;
            };
            this.more = read? > room;
        }
        let octets = this.ahead.len().min(room);
        buffer.put_slice(&this.ahead[..octets]);
        this.ahead.advance(octets);
        if this.ahead.is_empty() && !this.more {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::VecDeque, task::Waker};

    /// What arrives at a time; nothing in between.
    #[derive(Default)]
    struct Peer {
        arrives: VecDeque<Vec<u8>>,
        reads: usize,
    }

    impl AsyncRead for Peer {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.reads += 1;
            let Some(mut octets) = self.arrives.pop_front() else { return Poll::Ready(Ok(())) };
            let rest = octets.split_off(octets.len().min(buffer.remaining()));
            buffer.put_slice(&octets);
            match octets.is_empty() {
                true => return Poll::Pending,
                false => self.arrives.push_front(rest),
            }
            Poll::Ready(Ok(()))
        }
    }

    /// Reads what is there with a buffer of so many octets.
    fn read(stream: &mut ReadAhead<Peer>, room: usize) -> Poll<Vec<u8>> {
        let mut octets = vec![0; room];
        let mut buffer = ReadBuf::new(&mut octets);
        Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer).map(|read| {
            read.unwrap();
            buffer.filled().to_vec()
        })
    }

    #[test]
    fn much_is_read_at_once_and_nothing_is_held_without_need() {
        let mut stream = ReadAhead::new(Peer { arrives: [vec![1; 100], vec![2; 1 << 20]].into(), reads: 0 });
        assert_eq!(read(&mut stream, 4096), Poll::Ready(vec![1; 100]));
        assert_eq!((read(&mut stream, 4096), stream.ahead.capacity()), (Poll::Pending, 0));
        stream.stream.reads = 0;
        for _ in 0..(1 << 20) / 4096 {
            assert_eq!(read(&mut stream, 4096), Poll::Ready(vec![2; 4096]));
        }
        assert!(stream.stream.reads < 20, "{}", stream.stream.reads);
        assert_eq!((read(&mut stream, 4096), stream.ahead.capacity()), (Poll::Pending, 0));
        assert_eq!((read(&mut stream, 4096), read(&mut stream, 4096)), (Poll::Ready(vec![]), Poll::Ready(vec![])));
    }

    proptest! {
        #[test]
        fn what_arrives_is_read(
            arrives in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            rooms in proptest::collection::vec(1usize..100, 1..20),
        ) {
            let sent = arrives.concat();
            let mut stream = ReadAhead::new(Peer { arrives: arrives.into(), reads: 0 });
            let (mut got, mut rooms) = (Vec::new(), rooms.into_iter().cycle());
            loop {
                match read(&mut stream, rooms.next().unwrap()) {
                    Poll::Ready(octets) if octets.is_empty() => break,
                    Poll::Ready(octets) => got.extend(octets),
                    Poll::Pending => {}
                }
            }
            prop_assert_eq!(got, sent);
        }
    }
}
