//! The I/O shell of the protocol: typed frames over any byte stream, a reader and a writer that can always progress.
//!
//! It frames, orders and times out. It does not know what a frame means.

use std::convert::Infallible;
use std::future::pending;
use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::frame::{self, Decoder, FrameError};
pub use crate::lanes::Lane;
use crate::lanes::Lanes;
use crate::limits::WRITE_STALL;
use crate::wire::Frame;
use crate::wire::frame::Body;

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// The peer sent what is not a frame, or we built one that may not leave.
    #[error("the frame is not valid")]
    Frame(#[source] FrameError),
    /// The peer closed in the middle of a frame.
    #[error("the peer closed in the middle of a frame")]
    Truncated,
    /// The peer took nothing for too long.
    #[error("the peer stopped reading")]
    Stalled,
}

/// How much one read may bring: enough for two output frames.
const READ_CHUNK: usize = 64 * 1024;
/// What an idle session keeps: room for a ping.
const IDLE_BUFFER: usize = 512;
/// Frames of the control lane are gathered up to this size into one write.
const GATHER: usize = 16 * 1024;

/// The receiving half.
#[derive(Debug)]
pub struct Reader<R> {
    io: R,
    buffer: BytesMut,
    decoder: Decoder,
    /// How much the next read asks for: grows while bytes flow, shrinks when they stop.
    chunk: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads frames of at most `limit` bytes from `io`.
    pub fn new(io: R, limit: usize) -> Self {
        Self { io, buffer: BytesMut::new(), decoder: Decoder::new(limit), chunk: IDLE_BUFFER }
    }

    /// Changes the largest frame, once the peer is known.
    pub fn set_limit(&mut self, limit: usize) {
        self.decoder.set_limit(limit);
    }

    /// Waits for the next frame; `None` when the peer closed between frames.
    ///
    /// # Errors
    /// When the connection failed or the bytes are no frame: the link is then over.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: bytes that arrived stay in the buffer.
    pub async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).map_err(LinkError::Frame)? {
                if self.buffer.is_empty() {
                    // The storage went out with the frame; an idle session starts small again.
                    self.buffer = BytesMut::new();
                }
                return Ok(Some(frame));
            }
            self.buffer.reserve(self.chunk);
            let read = self.io.read_buf(&mut self.buffer).await.map_err(LinkError::Io)?;
            if read == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(LinkError::Truncated) };
            }
            self.chunk = if read >= self.chunk {
                (self.chunk * 4).min(READ_CHUNK)
            } else if read < IDLE_BUFFER {
                IDLE_BUFFER
            } else {
                self.chunk
            };
        }
    }
}

/// The sending half: frames are queued at once and leave lane by lane.
#[derive(Debug)]
pub struct Writer<W> {
    io: W,
    lanes: Lanes,
    queued_bytes: usize,
    /// Encoded bytes of the frame (or gathered control frames) that is leaving now.
    leaving: BytesMut,
    next_seq: u64,
    /// When the bytes in `leaving` must be gone.
    deadline: Option<Instant>,
    unflushed: bool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes frames to `io`.
    pub fn new(io: W) -> Self {
        Self {
            io,
            lanes: Lanes::default(),
            queued_bytes: 0,
            leaving: BytesMut::new(),
            next_seq: 1,
            deadline: None,
            unflushed: false,
        }
    }

    /// Queues a frame; answers its sequence number. They count up from 1 (protocol R-FRAME-4) as frames are queued, so
    /// an urgent frame may leave before one with a smaller number.
    pub fn push(&mut self, lane: Lane, body: Body) -> u64 {
        self.reply(lane, 0, body)
    }

    /// Queues the answer to the frame with the number `reply_to`.
    pub fn reply(&mut self, lane: Lane, reply_to: u64, body: Body) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let frame = Frame { seq, reply_to, may_ignore: false, body: Some(body) };
        self.queued_bytes += weight(&frame);
        self.lanes.push(lane, frame);
        seq
    }

    /// Counts the frames that wait in a lane.
    #[must_use]
    pub fn queued(&self, lane: Lane) -> usize {
        self.lanes.len(lane)
    }

    /// Counts the bytes that wait in all lanes.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes + self.leaving.len()
    }

    /// Writes what is queued, lane by lane, then waits for ever: made for `select!`.
    ///
    /// # Errors
    /// When the connection failed, a frame was too large, or the peer took nothing for [`WRITE_STALL`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: a frame that was half written goes on with the next call.
    pub async fn drive(&mut self) -> Result<Infallible, LinkError> {
        self.flush().await?;
        pending().await
    }

    /// Writes all that is queued.
    ///
    /// # Errors
    /// As [`Writer::drive`].
    ///
    /// # Cancel safety
    /// As [`Writer::drive`].
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        loop {
            if self.leaving.is_empty() && !self.load()? {
                if self.unflushed {
                    let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + WRITE_STALL);
                    timeout_at(deadline, self.io.flush())
                        .await
                        .map_err(|_| LinkError::Stalled)?
                        .map_err(LinkError::Io)?;
                    self.unflushed = false;
                }
                self.deadline = None;
                return Ok(());
            }
            let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + WRITE_STALL);
            let written = timeout_at(deadline, self.io.write(&self.leaving))
                .await
                .map_err(|_| LinkError::Stalled)?
                .map_err(LinkError::Io)?;
            if written == 0 {
                return Err(LinkError::Io(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.deadline = None;
            self.leaving.advance(written);
        }
    }

    /// Says goodbye to the byte stream, once everything is written.
    ///
    /// # Errors
    /// When the connection failed before.
    pub async fn close(&mut self) -> Result<(), LinkError> {
        self.flush().await?;
        self.io.shutdown().await.map_err(LinkError::Io)
    }

    /// Encodes the most urgent frame, or several small ones of the control lane; `false` when nothing waits.
    fn load(&mut self) -> Result<bool, LinkError> {
        if self.leaving.capacity() > 2 * READ_CHUNK || self.lanes.is_empty() {
            self.leaving = BytesMut::new();
        }
        loop {
            let control = self.lanes.len(Lane::Control) > 0;
            if !self.leaving.is_empty() && (!control || self.leaving.len() >= GATHER) {
                return Ok(true);
            }
            let Some(next) = self.lanes.pop() else {
                return Ok(!self.leaving.is_empty());
            };
            self.queued_bytes = self.queued_bytes.saturating_sub(weight(&next));
            frame::encode(&next, &mut self.leaving).map_err(LinkError::Frame)?;
        }
    }
}

/// What a queued frame weighs: payload plus a flat rate for the rest.
fn weight(frame: &Frame) -> usize {
    const FLAT: usize = 64;
    match &frame.body {
        Some(Body::CommandOutput(output)) => output.data.len() + FLAT,
        Some(Body::Command(command)) => command.args.len() + command.stdin.len() + FLAT,
        _ => FLAT,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::MAX_FRAME;
    use crate::wire::{CommandOutput, Ping};

    fn output(bytes: usize) -> Body {
        Body::CommandOutput(CommandOutput { data: vec![1; bytes].into(), ..CommandOutput::default() })
    }

    fn ping() -> Body {
        Body::Ping(Ping::default())
    }

    /// Protocol R-FRAME-4.
    #[tokio::test]
    async fn frames_cross_a_byte_stream_and_a_clean_close_is_none() -> Result<(), LinkError> {
        let (near, far) = tokio::io::duplex(1000);
        let (mut writer, mut reader) = (Writer::new(near), Reader::new(far, MAX_FRAME));
        let sent = writer.push(Lane::Followed, output(32 * 1024));
        let answer = writer.reply(Lane::Control, 7, ping());
        let (written, seen) = tokio::join!(writer.close(), async {
            let mut seen = Vec::new();
            while let Some(frame) = reader.next().await? {
                seen.push((frame.seq, frame.reply_to));
            }
            Ok::<_, LinkError>(seen)
        });
        written?;
        assert_eq!(seen?, [(answer, 7), (sent, 0)], "control overtakes");
        assert_eq!(writer.queued_bytes(), 0);
        Ok(())
    }

    #[tokio::test]
    async fn a_dropped_future_loses_no_byte_of_a_half_written_frame() -> Result<(), LinkError> {
        let (near, far) = tokio::io::duplex(100);
        let (mut writer, mut reader) = (Writer::new(near), Reader::new(far, MAX_FRAME));
        for _ in 0..20 {
            writer.push(Lane::Followed, output(1000));
        }
        let mut seen = Vec::new();
        while seen.len() < 20 {
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => {}
                end = writer.drive() => return end.map(|never| match never {}),
            }
            tokio::select! {
                biased;
                frame = reader.next() => match frame?.map(|frame| (frame.seq, frame.body)) {
                    Some((seq, body)) => {
                        assert_eq!(body, Some(output(1000)), "frame {seq}");
                        seen.push(seq);
                    }
                    None => panic!("the stream ended after {seen:?}"),
                },
                () = tokio::task::yield_now() => {}
            }
            tokio::select! {
                biased;
                end = writer.drive() => return end.map(|never| match never {}),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(seen, (1..=20).collect::<Vec<u64>>());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_reading_is_found_out() {
        let (near, _far) = tokio::io::duplex(100);
        let mut writer = Writer::new(near);
        writer.push(Lane::Bulk, output(1000));
        let start = Instant::now();
        assert!(matches!(writer.drive().await, Err(LinkError::Stalled)));
        assert!(start.elapsed() < WRITE_STALL + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_close_in_the_middle_of_a_frame_is_told_from_a_clean_one() {
        let (mut near, far) = tokio::io::duplex(100);
        let mut reader = Reader::new(far, MAX_FRAME);
        near.write_all(&[0, 0, 0, 9, 1]).await.ok();
        drop(near);
        assert!(matches!(reader.next().await, Err(LinkError::Truncated)));
    }
}
