//! A command as the store knows it, with its wishes, its end and its streams.

use std::time::Duration;

use common::id::{CommandId, Generation, JobId, Name, Uid};
use common::model::{Outcome, Phase, StreamName};
use serde::{Deserialize, Serialize};

use super::fleet::{Actor, Millis};
use super::requests::Request;

/// A command as the store knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub id: CommandId,
    pub uid: Uid,
    pub agent: Name,
    pub generation: Generation,
    pub job: Option<JobId>,
    pub attempt: u32,
    pub request: Request,
    pub phase: Phase,
    /// Why it is held back: `restored`, or what the agent said.
    pub waiting: Option<String>,
    pub created_at: Millis,
    pub created_by: Actor,
    pub expires_at: Millis,
    /// When it was first recorded as sent, and to which journal.
    pub first_sent_at: Option<Millis>,
    pub first_sent_journal: Option<Uid>,
    pub accepted_at: Option<Millis>,
    pub started_at: Option<Millis>,
    pub finished_at: Option<Millis>,
    pub progress: Option<Progress>,
    pub cancel: Option<Cancel>,
    /// `None` also when a wish to go on was acknowledged.
    pub pause: Option<Pause>,
    /// Everything about the end; present exactly when the phase is final.
    pub end: Option<End>,
    pub isolation: Option<String>,
    /// The agent was told that it may forget.
    pub result_acked: bool,
    pub streams: Vec<Stream>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub current: u64,
    pub total: u64,
    pub text: String,
}

/// A wish to stop a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    pub by: Actor,
    pub reason: Option<String>,
    pub at: Millis,
    /// `None`: the command's own, else the agent's default.
    pub grace: Option<Duration>,
    /// When the command began to stop because of it, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Millis>,
    /// Keys of the calls that brought it, newest last: the same call once more is no second wish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// What `cancel` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It had never been sent: it is cancelled now and will never run.
    Done,
    /// The agent must be told; the wish is durable.
    Pending { phase: Phase, again: bool },
    /// It was over before.
    AlreadyFinal(Phase),
}

/// A wish that a command pauses, or goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Orders the wishes for one command: a later one is larger, also over a restoration of the store.
    pub wish: u64,
    /// `false`: it is to go on.
    pub paused: bool,
    pub by: Actor,
    pub at: Millis,
    /// The agent has not answered.
    pub pending: bool,
    /// Why the agent would not.
    pub refused: Option<String>,
}

/// What became of a wish that a command pauses or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseAnswer {
    /// The wish is durable; the agent must be told.
    Wished,
    /// The same is wished or done already.
    Already,
    /// It was never sent, so there is nothing to pause.
    NotStarted,
    /// It is stopping, or its stop is wished.
    Stopping,
    /// It is over.
    Final(Phase),
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub outcome: Outcome,
    pub changed: bool,
    pub exit_code: Option<i32>,
    pub signal: Option<u32>,
    #[serde(default)]
    pub core_dumped: bool,
    pub oom: bool,
    /// Stable code and text; e.g. `spawn`, `journal_lost`, `agent_lost`.
    pub error: Option<EndError>,
    pub duration_us: Option<u64>,
    pub cpu_us: Option<u64>,
    pub memory_peak: Option<u64>,
    #[serde(default)]
    pub io_read: Option<u64>,
    #[serde(default)]
    pub io_written: Option<u64>,
    #[serde(default)]
    pub tasks_peak: Option<u64>,
    #[serde(default)]
    pub flags: Vec<String>,
    /// Answer of an operation without a process: JSON text.
    pub value: Option<String>,
    /// Agent's clock.
    pub started_ms: Option<Millis>,
    pub finished_ms: Option<Millis>,
    /// Who and why, as the agent recorded it, when the outcome is `cancelled`.
    pub cancelled_by: Option<String>,
    pub cancel_reason: Option<String>,
    #[serde(default)]
    pub lengths_are_lower_bounds: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndError {
    pub code: String,
    pub text: String,
}

/// One stream of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub name: StreamName,
    /// Bytes (and gaps) stored so far: the offset behind the last.
    pub length: u64,
    /// The length the agent reported with the end; `None` before it.
    pub final_length: Option<u64>,
    /// Every byte up to the end is here.
    pub end: bool,
    pub gaps: Vec<Gap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub offset: u64,
    pub length: u64,
}

/// Which commands a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct CommandFilter {
    pub agent: Option<Name>,
    pub job: Option<JobId>,
    pub phases: Vec<Phase>,
    pub operation: Option<String>,
    /// Only ids below this one: the cursor.
    pub before: Option<CommandId>,
    pub limit: usize,
}

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommandPage {
    pub commands: Vec<Command>,
    /// The cursor behind the page, when there may be more: it has as many as were asked for, or as large ones as a page
    /// takes.
    pub next: Option<CommandId>,
}

/// How many commands stand in each phase.
pub type PhaseCounts = Vec<(Phase, u64)>;

/// A late report about a command that the manager had ended itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub command: CommandId,
    pub at: Millis,
    /// JSON text of the [`End`].
    pub body: String,
}
