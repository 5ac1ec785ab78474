//! Keeps an injected value from coming back: an API that echoes its headers must not hand the key to the child.
//!
//! A guard against accidents, not against a child that tries: whoever may call an API can make it transform what it knows. Values of at least
//! twelve bytes are looked for raw, percent-encoded and in base64, in headers, trailers and bodies, across chunk borders. A hit is
//! overwritten by as many asterisks. A compressed body is decoded alongside and cut before the chunk that completes a hit leaves.

use std::{
    io::{self, Write},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header::CONTENT_ENCODING};
use http_body::{Body, Frame, SizeHint};

use crate::{credential::Needles, upstream::BoxError};

/// The window a zstd decoder must support for HTTP, log2 of bytes (RFC 9659 §3: 8 MiB).
const ZSTD_WINDOW_LOG: u32 = 23;

/// The most that one octet of DEFLATE can become (zlib's technical details). No honest body of any coding comes near; a bomb's in others may be
/// thousands of times that, and decoding it would keep a thread from everybody else.
const MOST_EXPANSION: usize = 1032;
/// What a decoder may have kept from earlier chunks, in octets: the largest window of brotli (RFC 7932 §9.1).
const KEPT: usize = 16 * 1024 * 1024;
/// The first seven bits of a brotli stream with a window of up to 1 GiB, which RFC 7932 §9.1 does not have: no HTTP client decodes it.
const LARGE_WINDOW: u8 = 0x11;

/// How many hits a response had so far, for its audit record.
pub type Hits = Arc<AtomicU64>;

/// A response body without the needles.
pub struct Scrubbed<B> {
    inner: B,
    needles: Arc<Needles>,
    hits: Hits,
    coding: Coding,
    /// The beginning of what may be a hit, held back until it is resolved.
    held: BytesMut,
    /// What ended the body while something was held: trailers, or an error.
    next: Option<Result<Frame<Bytes>, BoxError>>,
    ended: bool,
}

enum Coding {
    Identity,
    Decoded {
        decoder: Box<dyn Write + Send + Sync>,
        seen: Seen,
    },
    /// A coding nobody here can decode passes as it is.
    Unknown,
}

/// Set by the sink once decoded bytes held a needle.
type Seen = Arc<Mutex<Sink>>;

struct Sink {
    needles: Arc<Needles>,
    held: BytesMut,
    hit: bool,
    /// Octets that the present chunk may still become.
    room: usize,
}

/// A chunk that becomes more than [`MOST_EXPANSION`] allows.
#[derive(Debug, thiserror::Error)]
#[error("the response's body decodes to more than {MOST_EXPANSION} times its size")]
struct TooMuch;

struct SinkWriter(Seen);

impl Write for SinkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sink = lock(&self.0);
        sink.room = sink.room.checked_sub(bytes.len()).ok_or_else(|| io::Error::other(TooMuch))?;
        let mut text = std::mem::take(&mut sink.held);
        text.extend_from_slice(bytes);
        sink.hit |= sink.needles.is_in(&text);
        let begun = sink.needles.begun(&text);
        sink.held = text.split_off(text.len() - begun);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<B> Scrubbed<B> {
    pub fn new(inner: B, headers: &HeaderMap, needles: Arc<Needles>, hits: Hits) -> Self {
        let coding = coding(headers, &needles);
        Self { inner, needles, hits, coding, held: BytesMut::new(), next: None, ended: false }
    }

    fn data(&mut self, chunk: Bytes) -> io::Result<Bytes> {
        match &mut self.coding {
            Coding::Unknown => Ok(chunk),
            Coding::Decoded { decoder, seen } => {
                lock(seen).room = chunk.len() * MOST_EXPANSION + KEPT;
                match decoder.write_all(&chunk).and_then(|()| decoder.flush()) {
                    Err(error) if error.get_ref().is_some_and(|error| error.is::<TooMuch>()) => return Err(error),
                    // A body that does not decode is the client's to judge; nothing readable can be in it.
                    _ => {}
                }
                if lock(seen).hit {
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    return Err(io::Error::other("the response held the injected credential"));
                }
                Ok(chunk)
            }
            Coding::Identity => Ok(self.plain(chunk)),
        }
    }

    fn plain(&mut self, chunk: Bytes) -> Bytes {
        let clean = self.held.is_empty() && !self.needles.is_in(&chunk);
        if clean && self.needles.begun(&chunk) == 0 {
            return chunk;
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(&chunk);
        self.hits.fetch_add(self.needles.fill(&mut text), Ordering::Relaxed);
        let begun = self.needles.begun(&text);
        self.held = text.split_off(text.len() - begun);
        text.freeze()
    }
}

fn lock(seen: &Seen) -> MutexGuard<'_, Sink> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of brotli, what HTTP has.
struct Brotli {
    decoder: brotli_decompressor::DecompressorWriter<SinkWriter>,
    first: Option<u8>,
}

impl Write for Brotli {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let first = *self.first.get_or_insert(bytes.first().copied().unwrap_or_default());
        if first & 0x7f == LARGE_WINDOW {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.decoder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.decoder.flush()
    }
}

fn coding(headers: &HeaderMap, needles: &Arc<Needles>) -> Coding {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match (codings.next().map(HeaderValue::as_bytes), codings.next()) {
        (None, _) => return Coding::Identity,
        (Some(one), None) => one.trim_ascii().to_ascii_lowercase(),
        (Some(_), Some(_)) => return Coding::Unknown,
    };
    let seen = Seen::new(Mutex::new(Sink { needles: needles.clone(), held: BytesMut::new(), hit: false, room: 0 }));
    let sink = SinkWriter(seen.clone());
    let decoder: Box<dyn Write + Send + Sync> = match coding.as_slice() {
        b"identity" => return Coding::Identity,
        b"gzip" | b"x-gzip" => Box::new(flate2::write::MultiGzDecoder::new(sink)),
        b"deflate" => Box::new(flate2::write::ZlibDecoder::new(sink)),
        b"br" => Box::new(Brotli { decoder: brotli_decompressor::DecompressorWriter::new(sink, 4096), first: None }),
        b"zstd" => match zstd_decoder(sink) {
            Ok(decoder) => Box::new(decoder),
            Err(_) => return Coding::Unknown,
        },
        _ => return Coding::Unknown,
    };
    Coding::Decoded { decoder, seen }
}

fn zstd_decoder(sink: SinkWriter) -> io::Result<zstd::stream::write::Decoder<'static, SinkWriter>> {
    let mut decoder = zstd::stream::write::Decoder::new(sink)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

impl<B, E> Body for Scrubbed<B>
where
    B: Body<Data = Bytes, Error = E> + Unpin,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        while !this.ended {
            match std::task::ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                None => this.ended = true,
                Some(Err(error)) => {
                    this.ended = true;
                    this.next = Some(Err(error.into()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => match this.data(chunk) {
                        Ok(clean) if clean.is_empty() => {}
                        Ok(clean) => return Poll::Ready(Some(Ok(Frame::data(clean)))),
                        Err(error) => return Poll::Ready(Some(Err(error.into()))),
                    },
                    Err(frame) => {
                        this.ended = true;
                        if let Ok(mut trailers) = frame.into_trailers() {
                            this.hits.fetch_add(this.needles.headers(&mut trailers), Ordering::Relaxed);
                            this.next = Some(Ok(Frame::trailers(trailers)));
                        }
                    }
                },
            }
        }
        if !this.held.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(this.held.split().freeze()))));
        }
        Poll::Ready(this.next.take())
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.next.is_none() && (self.ended || self.inner.is_end_stream())
    }

    /// Filling in changes no length.
    fn size_hint(&self) -> SizeHint {
        let (inner, held) = (self.inner.size_hint(), self.held.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + held);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use base64::{Engine, engine::general_purpose};
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk-test-abc/def+0123456789";

    /// A body of ready chunks.
    struct Chunks(VecDeque<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = io::Error;

        /// `broken` stands for an error.
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            let next = self.0.pop_front();
            Poll::Ready(next.map(|chunk| if chunk == "broken" { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(Frame::data(chunk)) }))
        }
    }

    /// What leaves, up to the first error if there is one, and the number of hits.
    fn scrub(coding: Option<&'static str>, chunks: &[&[u8]]) -> (Vec<u8>, bool, u64) {
        let headers = coding.map(|coding| (CONTENT_ENCODING, HeaderValue::from_static(coding))).into_iter().collect();
        let needles = Needles::new([KEY]).unwrap();
        let (hits, chunks) = (Hits::default(), Chunks(chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect()));
        let mut body = Scrubbed::new(chunks, &headers, needles, hits.clone());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut out = Vec::new();
        loop {
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => out.extend_from_slice(frame.data_ref().unwrap()),
                Poll::Ready(Some(Err(_))) => return (out, true, hits.load(Ordering::Relaxed)),
                Poll::Ready(None) => return (out, false, hits.load(Ordering::Relaxed)),
                Poll::Pending => unreachable!("every chunk is ready"),
            }
        }
    }

    #[test]
    fn every_spelling_is_filled_in() {
        let percent = utf8_percent_encode(KEY, NON_ALPHANUMERIC).to_string();
        let mut texts = vec![KEY.to_owned(), percent.clone(), percent.to_lowercase(), format!("sid:{KEY}")];
        for before in ["", "a", "ab", "user:"] {
            let text = format!("{before}{KEY}\n");
            texts.extend([general_purpose::STANDARD.encode(&text), general_purpose::URL_SAFE.encode(&text)]);
        }
        for text in texts {
            let (out, cut, hits) = scrub(None, &[b"{\"echo\": \"", text.as_bytes(), b"\"}"]);
            assert_eq!((cut, hits, out.len()), (false, 1, text.len() + 12), "{text}");
            assert!(String::from_utf8_lossy(&out).contains("***********"), "{text}");
            assert!(!out.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
        }
    }

    #[test]
    fn a_hit_across_chunks_is_held_back_and_a_false_start_is_let_go() {
        let (head, tail) = KEY.as_bytes().split_at(9);
        let (out, _, hits) = scrub(None, &[b"x", head, tail, b"y"]);
        assert_eq!((out, hits), (format!("x{}y", "*".repeat(KEY.len())).into_bytes(), 1));
        let (out, _, hits) = scrub(None, &[b"x", head, b"!", head]);
        assert_eq!((out, hits), ([b"x", head, b"!", head].concat(), 0));
    }

    #[test]
    fn a_compressed_echo_is_cut_before_it_is_complete() {
        let text = format!("{}{KEY}{}", "before ".repeat(50), "after ".repeat(50));
        let gzip = {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let deflate = {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
        for (coding, bytes) in [("gzip", gzip), ("deflate", deflate), ("zstd", zstd)] {
            let chunks: Vec<&[u8]> = bytes.chunks(7).collect();
            let (out, cut, hits) = scrub(Some(coding), &chunks);
            assert!(cut && hits == 1 && out.len() < bytes.len(), "{coding}: cut {cut}, hits {hits}");
            let (out, cut, hits) = scrub(Some("unheard-of"), &chunks);
            assert_eq!((out, cut, hits), (bytes.clone(), false, 0), "the same bytes under a coding that is not decoded");
        }
    }

    #[test]
    fn what_was_held_back_leaves_before_the_error_that_ends_the_body() {
        assert_eq!(scrub(None, &[b"only this", b"broken"]), (b"only this".to_vec(), true, 0));
    }

    #[test]
    fn a_bomb_ends_the_response_and_what_deflate_can_do_does_not() {
        let zeros = vec![0; 64 * 1024 * 1024];
        let zstd = zstd::encode_all(zeros.as_slice(), 3).unwrap();
        assert!(zstd.len() * MOST_EXPANSION + KEPT < zeros.len(), "{} octets", zstd.len());
        let (out, cut, hits) = scrub(Some("zstd"), &[&zstd]);
        assert_eq!((out.len(), cut, hits), (0, true, 0));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&zeros).unwrap();
        let gzip = encoder.finish().unwrap();
        assert_eq!(scrub(Some("gzip"), &[&gzip]), (gzip, false, 0));
    }

    #[test]
    fn a_window_that_http_does_not_have_is_not_made() {
        let stream = [LARGE_WINDOW, 30, 0xff, 0xff];
        let mut brotli = Brotli { decoder: brotli_decompressor::DecompressorWriter::new(SinkWriter(no_needle()), 4096), first: None };
        assert!(brotli.write(&stream).is_err() && brotli.write(&[0xff]).is_err());
        assert_eq!(scrub(Some("br"), &[&stream]), (stream.to_vec(), false, 0));
    }

    fn no_needle() -> Seen {
        Seen::new(Mutex::new(Sink { needles: Needles::new([KEY]).unwrap(), held: BytesMut::new(), hit: false, room: 0 }))
    }

    proptest! {
        /// However the bytes are cut into chunks, what leaves is the same, and without a needle it is what came.
        #[test]
        fn chunks_do_not_matter(text in "[a-c]{0,40}(sk-test-abc/def\\+0123456789)?[sk-]{0,30}", cuts in proptest::collection::vec(1usize..9, 1..40)) {
            let mut chunks = Vec::new();
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (chunk, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            let (out, _, _) = scrub(None, &chunks);
            prop_assert_eq!(out, text.replace(KEY, &"*".repeat(KEY.len())).into_bytes());
        }
    }
}
