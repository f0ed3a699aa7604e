//! Output as bodies: read from the store by offset, as far as the reader takes it. A reader that stalls holds one piece
//! and nothing else; the manager never queues for it.
//!
//! ```text
//! look at the row ─► read every stream from its offset ─► nothing new ─► wait for a wake-up ─► look again
//! ```
//! The row is read before the streams, so that "complete" is only believed of bytes that were already readable.

use api::base64;
use api::commands::{NEXT_OFFSET, OutputChunk, OutputCursor};
use bytes::Bytes;
use common::error::Chain;
use common::id::CommandId;
use common::model::{Phase, StreamName};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use store::CommandWatch;
use store::types::{Gap, OutputRead};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::body::{Cut, Source, Step};
use super::convert;
use super::gate::Standing;
use super::sse;
use crate::limits::{EVENT_PIECE, RAW_PIECE, ROW_AGE};
use crate::service::output::OutputSource;
use crate::service::{Caller, CommandView, Service, ServiceError};

/// What both kinds of readers have in common.
pub(super) struct Reader {
    pub(super) service: Service,
    pub(super) caller: Caller,
    pub(super) standing: Standing,
    pub(super) id: CommandId,
    pub(super) source: OutputSource,
    /// Wait for more until the end.
    pub(super) follow: bool,
    pub(super) watch: CommandWatch,
}

/// Why a wait ended.
enum Woken {
    Changed,
    StillAlive,
    Stopping,
}

impl Reader {
    async fn look(&self) -> Result<CommandView, ServiceError> {
        self.service.command(&self.caller, self.id).await
    }

    async fn read(&self, stream: StreamName, offset: u64, max: usize) -> Result<OutputRead, ServiceError> {
        self.service.output_read(&self.caller, &self.source, stream, offset, max).await
    }

    async fn wait(&mut self) -> Woken {
        let silent_until = Instant::now() + sse::KEEP_ALIVE;
        loop {
            let pause = Standing::RECHECK.min(silent_until.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = self.watch.changed() => return Woken::Changed,
                // The next look and the next read ask for what is still allowed.
                () = self.standing.changed() => return Woken::Changed,
                () = self.service.shutdown().requested() => return Woken::Stopping,
                () = sleep(pause) => {}
            }
            if !self.standing.holds().await {
                return Woken::Stopping;
            }
            if Instant::now() >= silent_until {
                return Woken::StillAlive;
            }
        }
    }

    /// Tells whether the reader may go on: a flood never waits, and a revoked token must not read it to its end.
    async fn may_go_on(&mut self) -> bool {
        self.standing.holds().await && !self.service.shutdown().is_requested()
    }

    fn failed(&self, error: &dyn std::error::Error) -> Step {
        warn!(command.id = self.id.0, error = %Chain(error), "A reader of output was cut because of an error");
        Some(Err(Cut))
    }
}

/// A reader whose right ended is stopped without a word to the log: it was told when it asked, and is told when it asks again.
fn right_is_gone(error: &ServiceError) -> bool {
    matches!(error, ServiceError::Forbidden { .. } | ServiceError::NotFound { .. })
}

/// Tells how long a stream is, and whether all of it is here.
fn stand(view: &CommandView, name: StreamName) -> (u64, bool) {
    match view.command.streams.iter().find(|stream| stream.name == name) {
        Some(stream) => (stream.length, stream.end),
        None => (0, view.complete()),
    }
}

/// Finds where reading goes on when the row says that the bytes at an offset are gone for good. The row may know it of
/// bytes that never came, where the stored output just ends.
fn behind_gap(view: &CommandView, name: StreamName, offset: u64) -> Option<u64> {
    let stream = view.command.streams.iter().find(|stream| stream.name == name)?;
    let behind = |gap: &Gap| gap.offset.saturating_add(gap.length);
    stream.gaps.iter().find(|gap| gap.offset <= offset && offset < behind(gap)).map(behind)
}

/// The bytes of one stream.
pub(super) struct Raw {
    reader: Reader,
    stream: StreamName,
    next: u64,
    takes_trailers: bool,
}

impl Raw {
    pub(super) fn new(reader: Reader, stream: StreamName, from: u64, takes_trailers: bool) -> Self {
        Self { reader, stream, next: from, takes_trailers }
    }

    async fn step(&mut self) -> Result<Step, ServiceError> {
        if !self.reader.may_go_on().await {
            return Ok(self.stop_at(self.next));
        }
        let mut looked = false;
        loop {
            match self.reader.read(self.stream, self.next, RAW_PIECE).await? {
                OutputRead::Bytes(bytes) => {
                    self.next = self.next.saturating_add(bytes.len() as u64);
                    return Ok(Some(Ok(Frame::data(bytes))));
                }
                OutputRead::Gap(gap) => return Ok(self.stop_at(gap.offset.saturating_add(gap.length))),
                OutputRead::Nothing => {}
            }
            let view = self.reader.look().await?;
            if let Some(next) = behind_gap(&view, self.stream, self.next) {
                return Ok(self.stop_at(next));
            }
            match stand(&view, self.stream) {
                // More became readable in between. If it is still not there at the second look, it is waited for.
                (length, _) if length > self.next && !looked => {
                    looked = true;
                    continue;
                }
                (length, true) if length <= self.next => return Ok(None),
                _ if !self.reader.follow => {
                    return Ok(self.takes_trailers.then(|| Ok(Frame::trailers(trailers(self.next)))));
                }
                _ => {}
            }
            if matches!(self.reader.wait().await, Woken::Stopping) {
                return Ok(self.stop_at(self.next));
            }
            looked = false;
        }
    }

    /// Ends the body before its stream: with the place to go on where the peer can be told, cut off where it cannot.
    fn stop_at(&self, next: u64) -> Step {
        Some(if self.takes_trailers { Ok(Frame::trailers(trailers(next))) } else { Err(Cut) })
    }
}

fn trailers(next: u64) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(NEXT_OFFSET), HeaderValue::from(next))])
}

impl Source for Raw {
    async fn next(&mut self) -> Step {
        match self.step().await {
            Ok(step) => step,
            Err(error) if right_is_gone(&error) => self.stop_at(self.next),
            Err(error) => self.reader.failed(&error),
        }
    }
}

/// All streams, or one, as events; the last is `end`.
pub(super) struct Events {
    reader: Reader,
    streams: Vec<StreamName>,
    cursor: OutputCursor,
    /// The row, when it was read, and whether it is worth another look.
    row: Option<(CommandView, Instant)>,
    shown: Option<Phase>,
    /// Whose turn it is: a flood on one stream does not hold back the other.
    turn: usize,
    ended: bool,
}

impl Events {
    pub(super) fn new(reader: Reader, only: Option<StreamName>, cursor: OutputCursor) -> Self {
        let streams = only.map_or_else(|| StreamName::ALL.to_vec(), |stream| vec![stream]);
        Self { reader, streams, cursor, row: None, shown: None, turn: 0, ended: false }
    }

    async fn step(&mut self) -> Result<Step, ServiceError> {
        if self.ended || !self.reader.may_go_on().await {
            return Ok(None);
        }
        loop {
            let (view, read_at) = match self.row.take() {
                Some(row) if row.1.elapsed() < ROW_AGE => row,
                _ => (self.reader.look().await?, Instant::now()),
            };
            if self.shown != Some(view.command.phase) {
                self.shown = Some(view.command.phase);
                let event = self.command("phase", view.clone());
                self.row = Some((view, read_at));
                return Ok(event);
            }
            if let Some(event) = self.piece(&view).await? {
                self.row = Some((view, read_at));
                return Ok(Some(event));
            }
            let all_here = self.streams.iter().all(|stream| {
                let (length, end) = stand(&view, *stream);
                end && self.cursor.next(*stream) >= length
            });
            if !self.reader.follow || (view.command.phase.is_final() && all_here) {
                self.ended = true;
                return Ok(self.command("end", view));
            }
            match self.reader.wait().await {
                Woken::Changed => {}
                Woken::StillAlive => return Ok(Some(Ok(Frame::data(sse::comment())))),
                Woken::Stopping => return Ok(None),
            }
        }
    }

    /// Reads the next piece of any stream; `None` when there is nothing new.
    async fn piece(&mut self, view: &CommandView) -> Result<Option<Result<Frame<Bytes>, Cut>>, ServiceError> {
        for _ in 0..self.streams.len() {
            let Some(stream) = self.streams.get(self.turn % self.streams.len()).copied() else {
                break;
            };
            self.turn = self.turn.wrapping_add(1);
            let offset = self.cursor.next(stream);
            let (length, end) = stand(view, stream);
            if end && offset >= length {
                continue;
            }
            let (b64, gap) = match self.reader.read(stream, offset, EVENT_PIECE).await? {
                OutputRead::Nothing => match behind_gap(view, stream, offset) {
                    None => continue,
                    Some(behind) => {
                        self.cursor.advance(stream, behind);
                        (String::new(), behind - offset)
                    }
                },
                OutputRead::Bytes(bytes) => {
                    self.cursor.advance(stream, offset.saturating_add(bytes.len() as u64));
                    (base64::encode(&bytes), 0)
                }
                OutputRead::Gap(gap) => {
                    let behind = gap.offset.saturating_add(gap.length);
                    self.cursor.advance(stream, behind);
                    (String::new(), behind.saturating_sub(offset))
                }
            };
            let chunk = OutputChunk { stream, offset, b64, gap };
            return Ok(sse::event(Some("output"), &self.cursor.to_string(), &chunk)
                .ok()
                .map(|bytes| Ok(Frame::data(bytes))));
        }
        Ok(None)
    }

    fn command(&self, name: &str, view: CommandView) -> Step {
        let command = convert::commands::command(view);
        match sse::event(Some(name), &self.cursor.to_string(), &command) {
            Ok(bytes) => Some(Ok(Frame::data(bytes))),
            Err(error) => self.reader.failed(&error),
        }
    }
}

impl Source for Events {
    async fn next(&mut self) -> Step {
        match self.step().await {
            Ok(step) => step,
            Err(error) if right_is_gone(&error) => None,
            Err(error) => self.reader.failed(&error),
        }
    }
}
