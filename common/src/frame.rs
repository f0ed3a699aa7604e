//! Length-prefixed frames: an incremental decoder and an encoder. No I/O; bytes in, frames out.
//!
//! ```text
//! u32 big-endian length │ protobuf Frame of that many bytes
//! ```
//! An announced length is never a reason to allocate: the caller's buffer grows only with bytes that arrived
//! (protocol R-FRAME-3).

use bytes::{Buf, BufMut, BytesMut};
use prost::Message;

use crate::census;
use crate::limits::FRAME_HEADER;
use crate::wire::Frame;

/// Why bytes are not a frame. All of them end the session.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame has at least one byte (protocol R-FRAME-1).
    #[error("a frame of length 0")]
    Empty,
    /// The announced or built length is above the limit of this stage.
    #[error("a frame of {length} bytes where at most {limit} are allowed")]
    TooLarge {
        /// What was announced or built.
        length: usize,
        /// What is allowed now.
        limit: usize,
    },
    /// The bytes are the start of an HTTP request, and the log says so (protocol R-FRAME-7).
    #[error("the peer speaks HTTP; this port speaks the agent protocol")]
    LooksLikeHttp,
    /// A list in it has more items than any proper one (protocol R-FRAME-8).
    #[error("a list in the frame has more than {most} items")]
    TooMany {
        /// How many it may have.
        most: usize,
    },
    /// The bytes are no protobuf `Frame`.
    #[error("the bytes are not a frame")]
    Undecodable(#[source] prost::DecodeError),
}

/// Methods of HTTP/1 and the preface of HTTP/2: what browsers and probes open a connection with.
const HTTP_STARTS: [&[u8; 4]; 9] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI "];

/// Tells whether bytes look like the start of an HTTP request.
#[must_use]
pub fn looks_like_http(start: &[u8]) -> bool {
    start.get(..4).is_some_and(|start| HTTP_STARTS.iter().any(|known| *known == start))
}

/// Appends a frame to `out`.
///
/// # Errors
/// When the frame is larger than [`crate::limits::MAX_FRAME`]; `out` is then as before.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Result<(), FrameError> {
    let length = frame.encoded_len();
    let limit = crate::limits::MAX_FRAME;
    let prefix = u32::try_from(length).map_err(|_| FrameError::TooLarge { length, limit })?;
    if length > limit {
        return Err(FrameError::TooLarge { length, limit });
    }
    out.reserve(FRAME_HEADER + length);
    out.put_u32(prefix);
    // The only error of prost is a full buffer, and the space was reserved.
    frame.encode(out).map_err(|_| FrameError::TooLarge { length, limit })
}

/// Takes frames out of bytes as they arrive, under a limit that depends on the stage of the session (protocol
/// R-FRAME-2).
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
}

impl Decoder {
    /// Makes a decoder that refuses frames above `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit }
    }

    /// Changes the limit, once the peer is known.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes one frame from the front of `buffer`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes can never become a frame. The session is then over.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length) = self.announced(buffer)? else {
            return Ok(None);
        };
        if buffer.len() < FRAME_HEADER + length {
            return Ok(None);
        }
        buffer.advance(FRAME_HEADER);
        let body = buffer.split_to(length).freeze();
        if let Some(most) = census::too_many(&body) {
            return Err(FrameError::TooMany { most });
        }
        Frame::decode(body).map(Some).map_err(FrameError::Undecodable)
    }

    /// Reads and checks the length prefix.
    fn announced(&self, buffer: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(&prefix) = buffer.first_chunk::<FRAME_HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(prefix) as usize;
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > self.limit {
            if looks_like_http(&prefix) {
                return Err(FrameError::LooksLikeHttp);
            }
            return Err(FrameError::TooLarge { length, limit: self.limit });
        }
        Ok(Some(length))
    }
}

#[cfg(test)]
#[path = "frame_attacks.rs"]
mod attacks;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{MAX_FRAME, MAX_FRAME_BEFORE_HELLO};
    use crate::wire::{CommandOutput, Ping, frame::Body};

    fn ping(seq: u64) -> Frame {
        Frame { seq, body: Some(Body::Ping(Ping::default())), ..Frame::default() }
    }

    fn output(bytes: usize) -> Frame {
        let data = vec![7; bytes].into();
        Frame {
            seq: 1,
            body: Some(Body::CommandOutput(CommandOutput { data, ..CommandOutput::default() })),
            ..Frame::default()
        }
    }

    #[test]
    fn a_frame_survives_any_split_of_its_bytes() -> Result<(), FrameError> {
        let frames = [ping(1), output(3000), ping(3)];
        let mut all = BytesMut::new();
        for frame in &frames {
            encode(frame, &mut all)?;
        }
        for step in 1..all.len() {
            let mut decoder = Decoder::new(MAX_FRAME);
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for part in all.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(frame) = decoder.decode(&mut buffer)? {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames, "split every {step} bytes");
        }
        Ok(())
    }

    /// Protocol R-FRAME-2.
    #[test]
    fn the_limit_holds_on_both_sides_of_its_edge() -> Result<(), FrameError> {
        let mut bytes = BytesMut::new();
        encode(&output(5000), &mut bytes)?;
        let length = bytes.len() - FRAME_HEADER;
        assert!(Decoder::new(length).decode(&mut bytes.clone())?.is_some());
        let refused = Decoder::new(length - 1).decode(&mut bytes);
        assert!(matches!(refused, Err(FrameError::TooLarge { limit, .. }) if limit == length - 1));
        let mut out = BytesMut::new();
        assert!(encode(&output(MAX_FRAME), &mut out).is_err());
        assert!(out.is_empty(), "a refused frame leaves nothing behind");
        Ok(())
    }

    /// Protocol R-FRAME-3.
    #[test]
    fn an_announced_length_is_not_a_reason_to_allocate() {
        let mut buffer = BytesMut::from(&(MAX_FRAME_BEFORE_HELLO as u32).to_be_bytes()[..]);
        let before = buffer.capacity();
        assert!(matches!(Decoder::new(MAX_FRAME_BEFORE_HELLO).decode(&mut buffer), Ok(None)));
        assert_eq!(buffer.capacity(), before);
    }

    /// Protocol R-FRAME-1, R-FRAME-7.
    #[test]
    fn empty_frames_and_http_are_named() {
        let mut decoder = Decoder::new(MAX_FRAME);
        assert!(matches!(decoder.decode(&mut BytesMut::from(&[0; 4][..])), Err(FrameError::Empty)));
        for start in ["GET / HTTP/1.1\r\n", "POST /", "PRI * HTTP/2.0\r\n"] {
            let refused = decoder.decode(&mut BytesMut::from(start.as_bytes()));
            assert!(matches!(refused, Err(FrameError::LooksLikeHttp)), "{start}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_never_yield_more_than_they_hold(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::new(MAX_FRAME_BEFORE_HELLO);
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut taken = 0;
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {
                taken += 1;
            }
            prop_assert!(taken <= bytes.len() / (FRAME_HEADER + 1));
        }
    }
}
