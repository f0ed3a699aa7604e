//! Reads the output of a command, and goes on at the next byte when the connection breaks.

use std::time::Duration;

use bytes::Bytes;
use common::backoff::Backoff;
use common::model::StreamName;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};

use super::calls::{Client, PAUSES, Words};
use super::connection::Connection;
use super::error::ClientError;
use super::sse::{SseEvent, SseStream};
use crate::base64;
use crate::commands::{Command, NEXT_OFFSET, OutputChunk, OutputCursor};

/// How long a raw follower waits in silence before it asks again: nothing else tells a quiet command from a dead peer.
const RAW_SILENCE: Duration = Duration::from_secs(60);

/// What happens to a command that is followed.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputEvent {
    /// Bytes of a stream.
    Bytes {
        /// The stream.
        stream: StreamName,
        /// Where they begin.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Bytes that no longer exist.
    Gap {
        /// The stream.
        stream: StreamName,
        /// Where they began.
        offset: u64,
        /// How many they were.
        length: u64,
    },
    /// The command is in another phase.
    Phase(Box<Command>),
    /// All streams were read as far as asked for; nothing follows.
    End(Box<Command>),
}

/// All streams of a command, in the order in which they became readable.
pub struct OutputStream {
    client: Client,
    id: u64,
    cursor: OutputCursor,
    follow: bool,
    open: Option<SseStream>,
    done: bool,
    was_open: bool,
    pauses: Backoff,
    broken_since: Option<Instant>,
}

impl OutputStream {
    pub(super) fn new(client: Client, id: u64, cursor: OutputCursor, follow: bool) -> Self {
        let pauses = Backoff::new(PAUSES.0, PAUSES.1);
        Self { client, id, cursor, follow, open: None, done: false, was_open: false, pauses, broken_since: None }
    }

    /// How far it was read.
    #[must_use]
    pub fn cursor(&self) -> &OutputCursor {
        &self.cursor
    }

    /// Waits for the next piece; `None` behind the end.
    ///
    /// # Errors
    /// When the manager refuses, or stays away for longer than the client is patient.
    ///
    /// # Cancel safety
    /// Safe: a piece is either returned or still to come.
    pub async fn next(&mut self) -> Result<Option<OutputEvent>, ClientError> {
        while !self.done {
            match self.try_next().await {
                Ok(Some(event)) => {
                    self.pauses.reset();
                    self.broken_since = None;
                    self.done = matches!(event, OutputEvent::End(_));
                    return Ok(Some(event));
                }
                Ok(None) => {}
                Err(error) => {
                    self.open = None;
                    let since = *self.broken_since.get_or_insert_with(Instant::now);
                    let never = !self.was_open && matches!(error, ClientError::Unreachable { .. });
                    if never || !error.is_transient() || since.elapsed() >= self.client.shared.patience {
                        return Err(error);
                    }
                    sleep(self.pauses.next()).await;
                }
            }
        }
        Ok(None)
    }

    /// One step; `None` when it led to nothing new.
    async fn try_next(&mut self) -> Result<Option<OutputEvent>, ClientError> {
        let stream = match &mut self.open {
            Some(open) => open,
            None => {
                let mut words = Words::default();
                words.add("follow", Some(self.follow));
                let path = words.behind(&format!("/commands/{}/output", self.id));
                let last = Some(self.cursor.to_string()).filter(|text| !text.is_empty());
                let opened = SseStream::open(&self.client, &path, last).await?;
                self.was_open = true;
                self.open.insert(opened)
            }
        };
        let event = stream.next().await?.ok_or_else(|| self.client.shared.dialer.lost("the output ended early"))?;
        self.understand(&event)
            .map_err(|source| ClientError::Malformed { what: format!("GET /commands/{}/output", self.id), source })
    }

    fn understand(&mut self, event: &SseEvent) -> Result<Option<OutputEvent>, super::error::Cause> {
        match event.name.as_str() {
            "output" => {
                let chunk: OutputChunk = serde_json::from_str(&event.data)?;
                let bytes = base64::decode(&chunk.b64)?;
                let next = self.cursor.next(chunk.stream);
                if chunk.offset != next {
                    return Err(format!("{} goes on at {} instead of {next}", chunk.stream, chunk.offset).into());
                }
                let length = if chunk.gap > 0 { chunk.gap } else { bytes.len() as u64 };
                self.cursor.advance(chunk.stream, next.saturating_add(length));
                let OutputChunk { stream, offset, gap, .. } = chunk;
                Ok(Some(if gap > 0 {
                    OutputEvent::Gap { stream, offset, length: gap }
                } else {
                    OutputEvent::Bytes { stream, offset, bytes: bytes.into() }
                }))
            }
            "phase" => Ok(Some(OutputEvent::Phase(serde_json::from_str(&event.data)?))),
            "end" => Ok(Some(OutputEvent::End(serde_json::from_str(&event.data)?))),
            // A newer manager may say more than we know.
            _ => Ok(None),
        }
    }
}

/// A piece of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawPiece {
    /// Bytes that follow on what was read before.
    Bytes(Bytes),
    /// Bytes that no longer exist; reading goes on behind them.
    Gap {
        /// Where they began.
        offset: u64,
        /// How many they were.
        length: u64,
    },
}

/// The bytes of one stream of a command.
pub struct RawOutput {
    client: Client,
    id: u64,
    stream: StreamName,
    next: u64,
    follow: bool,
    open: Option<(Connection, Incoming)>,
    done: bool,
    was_open: bool,
    pauses: Backoff,
    broken_since: Option<Instant>,
}

impl RawOutput {
    pub(super) fn new(client: Client, id: u64, stream: StreamName, from: u64, follow: bool) -> Self {
        let pauses = Backoff::new(PAUSES.0, PAUSES.1);
        Self {
            client,
            id,
            stream,
            next: from,
            follow,
            open: None,
            done: false,
            was_open: false,
            pauses,
            broken_since: None,
        }
    }

    /// The offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.next
    }

    /// Waits for the next piece; `None` behind the end.
    ///
    /// # Errors
    /// When the manager refuses, or stays away for longer than the client is patient.
    ///
    /// # Cancel safety
    /// Safe: a piece is either returned or still to come.
    pub async fn next(&mut self) -> Result<Option<RawPiece>, ClientError> {
        while !self.done {
            match self.try_next().await {
                Ok(Some(piece)) => {
                    self.pauses.reset();
                    self.broken_since = None;
                    return Ok(Some(piece));
                }
                Ok(None) => {}
                Err(error) => {
                    self.open = None;
                    let since = *self.broken_since.get_or_insert_with(Instant::now);
                    let never = !self.was_open && matches!(error, ClientError::Unreachable { .. });
                    if never || !error.is_transient() || since.elapsed() >= self.client.shared.patience {
                        return Err(error);
                    }
                    sleep(self.pauses.next()).await;
                }
            }
        }
        Ok(None)
    }

    async fn try_next(&mut self) -> Result<Option<RawPiece>, ClientError> {
        let (connection, body) = match &mut self.open {
            Some(open) => open,
            None => {
                let mut words = Words::default();
                words.add("stream", Some(self.stream));
                words.add("from", Some(self.next));
                words.add("follow", Some(self.follow));
                let path = words.behind(&format!("/commands/{}/output", self.id));
                let (connection, answer) = self.client.stream(&path, "application/octet-stream", None).await?;
                self.was_open = true;
                self.open.insert((connection, answer.into_body()))
            }
        };
        let Ok(frame) = timeout(RAW_SILENCE, connection.frame(body)).await else {
            // Asking again from the same offset costs nothing when all is well.
            self.open = None;
            return Ok(None);
        };
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) if bytes.is_empty() => Ok(None),
                Ok(bytes) => {
                    self.next = self.next.saturating_add(bytes.len() as u64);
                    Ok(Some(RawPiece::Bytes(bytes)))
                }
                Err(frame) => self.trailer(&frame),
            },
            Some(Err(error)) => Err(self.client.shared.dialer.lost(error)),
            None => {
                self.done = true;
                if let Some((connection, _)) = self.open.take() {
                    self.client.keep(connection);
                }
                Ok(None)
            }
        }
    }

    /// Reads where the stream goes on when the body ended before the stream did: behind a gap, or right here because the
    /// manager is about to stop.
    fn trailer(&mut self, frame: &hyper::body::Frame<Bytes>) -> Result<Option<RawPiece>, ClientError> {
        let value = frame.trailers_ref().and_then(|trailers| trailers.get(NEXT_OFFSET));
        let Some(next) = value.and_then(|value| value.to_str().ok()?.parse::<u64>().ok()) else {
            return Ok(None);
        };
        self.open = None;
        match next.checked_sub(self.next) {
            Some(0) if self.follow => Err(self.client.shared.dialer.lost("the manager ended the output early")),
            Some(0) => {
                self.done = true;
                Ok(None)
            }
            Some(length) => {
                let offset = std::mem::replace(&mut self.next, next);
                Ok(Some(RawPiece::Gap { offset, length }))
            }
            None => Err(self.client.shared.dialer.lost("the manager sent more than it says")),
        }
    }
}
