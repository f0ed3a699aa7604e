//! What goes to agents and what they say: what is due, answers, progress, ends, inventories, bytes.

use std::time::Duration;

use bytes::Bytes;
use common::id::{CommandId, Generation, JobId, Name, Uid};
use common::model::{Phase, StreamName};
use serde::{Deserialize, Serialize};

use super::commands::{Cancel, Command, End, Gap, Pause, Progress};
use super::fleet::Millis;
use super::requests::Request;

/// The session that asks for what is due for its agent.
#[derive(Debug, Clone)]
pub struct Taker {
    pub agent: Name,
    pub generation: Generation,
    pub journal: Uid,
    /// How much it has room for.
    pub limit: usize,
    /// What was sent that long ago, and not answered, is sent again.
    pub resend: Duration,
}

/// A command that waits to be sent, to be cancelled, to be paused or to go on, on a connected agent.
#[derive(Debug, Clone)]
pub struct Due {
    pub id: CommandId,
    pub uid: Uid,
    pub what: DueKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum DueKind {
    /// Send the Command. It is recorded as sent when this is returned.
    Send(Box<Command>),
    /// Send CommandCancel, never the Command again.
    Cancel(Cancel, Millis, Generation),
    /// Send CommandPause.
    Pause(Pause, Generation),
}

/// What an agent answered to a Command that was sent to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AckAnswer {
    /// It is durable there.
    Accepted,
    /// It was durable there before, and has come this far.
    Duplicate(HeldPhase),
    /// Not before this time.
    Deferred { until: Millis },
    /// It will not run it; nothing of it is kept there.
    Refused { code: String, text: String },
    /// It came after its validity.
    Expired,
}

/// What an agent's answer to a Command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    pub command: CommandId,
    pub phase: Phase,
    /// A wish that it pauses waited for this answer, and is due now.
    pub wished: bool,
}

/// What an agent answered to a CommandPause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PauseHeard {
    /// The wish is in place there.
    Taken,
    /// There is nothing left to pause there.
    Unknown,
    /// It will not, for this reason: a stable word.
    Refused(String),
}

/// How far a running command has come, as its agent says.
#[derive(Debug, Clone)]
pub struct ProgressReport {
    pub phase: HeldPhase,
    pub progress: Option<Progress>,
    /// Why it is held back, when it waits.
    pub waiting: Option<String>,
    pub isolation: Option<String>,
    /// The agent's clock at the change of phase; `None` when it named none.
    pub at: Option<Millis>,
}

/// What an agent reports as the end, with its streams.
#[derive(Debug, Clone)]
pub struct Reported {
    pub end: End,
    pub streams: Vec<StreamEnd>,
    pub isolation: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    pub name: StreamName,
    pub length: u64,
    pub gaps: Vec<Gap>,
    /// Offset, length and BLAKE3 hash of each kept segment.
    pub segments: Vec<(u64, u64, [u8; 32])>,
}

/// What became of a reported end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultTaken {
    pub command: CommandId,
    pub phase: Phase,
    pub kind: ResultKind,
    /// There are no bytes to wait for: with this commit the agent may forget, and that is recorded.
    pub acked: bool,
}

/// How a reported end met what was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// It ended the command.
    First,
    /// It was known already.
    Repeat,
    /// The manager had ended the command itself; the report is kept as evidence.
    Late,
}

/// One line of what an agent holds, as far as the store must judge it.
#[derive(Debug, Clone)]
pub struct Held {
    pub uid: Uid,
    pub id: CommandId,
    pub generation: Generation,
    pub phase: HeldPhase,
    pub started_ms: Option<Millis>,
    pub tombstone: bool,
}

/// How far the agent has come with something it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldPhase {
    Accepted,
    Waiting,
    Running,
    Paused,
    Stopping,
    Ended,
}

/// What to answer to a [`Held`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on, send from these offsets; `cancel` when a stop is wished.
    Continue { command: CommandId, from: Vec<(StreamName, u64)>, cancel: Option<Cancel> },
    /// END and every byte are here.
    Forget,
    /// Nobody here knows it: its Command is needed to import it as history.
    Describe,
    /// It belongs to another bearer of the name.
    NotMine,
}

/// A command only the agent knew, to be imported as history.
#[derive(Debug, Clone)]
pub struct Import {
    pub agent: Name,
    pub uid: Uid,
    pub id: CommandId,
    pub generation: Generation,
    pub job: Option<JobId>,
    pub attempt: u32,
    pub request: Request,
    pub created_at: Millis,
    pub expires_at: Millis,
    pub phase: HeldPhase,
    /// Only its end is left there.
    pub tombstone: bool,
    pub journal: Uid,
}

/// Bytes on their way into the output store.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub command: CommandId,
    pub stream: StreamName,
    pub offset: u64,
    /// Empty when `gap` is not 0.
    pub data: Bytes,
    pub gap: u64,
}

/// How far a stream has come after an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub command: CommandId,
    pub stream: StreamName,
    /// The offset behind the last stored byte or gap.
    pub length: u64,
}

/// What a reader finds at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputRead {
    Bytes(Bytes),
    /// Bytes that no longer exist; reading goes on behind them.
    Gap(Gap),
    /// Nothing is stored at this offset yet, or the stream ends here.
    Nothing,
}
