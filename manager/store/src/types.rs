//! Rows as domain records: what the facade takes and gives. No SQL, no wire types, no DTOs.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::id::{CommandId, Epoch, Generation, Incarnation, JobId, Name, StorePosition, Uid};
use common::model::{Outcome, Phase, StreamName};
use serde::{Deserialize, Serialize};

/// Unix milliseconds of the manager's clock.
pub type Millis = u64;

/// Who does something: an operator's token, the local socket's user, an agent, or the manager itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor(pub String);

/// What does not change while a store lives, and what says which life it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name of the cluster, drawn when the store was made.
    pub cluster: Name,
    /// Changes when the store is found to be older than what agents remember.
    pub incarnation: Incarnation,
}

/// An agent as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub name: Name,
    pub generation: Generation,
    /// Epoch of the newest session, 0 before the first.
    pub epoch: Epoch,
    pub created_at: Millis,
    /// When the newest session began and how it was reached; `None` before the first.
    pub connected_at: Option<Millis>,
    /// When the newest session ended; `None` while it lasts.
    pub disconnected_at: Option<Millis>,
    pub address: Option<String>,
    pub version: Option<String>,
    pub isolation: Option<String>,
    pub journal: Option<Uid>,
    pub boot_id: Option<String>,
    pub cores: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub labels: BTreeMap<String, String>,
    /// Why nobody of this name is served until an operator accepts one.
    pub quarantined: Option<String>,
    /// No new commands are sent.
    pub drained: bool,
}

/// What a session that was just opened says of its agent.
#[derive(Debug, Clone)]
pub struct Connect {
    pub name: Name,
    pub generation: Generation,
    pub journal: Uid,
    pub boot_id: String,
    pub address: String,
    pub version: String,
    pub isolation: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub labels: BTreeMap<String, String>,
}

/// What the caller of an operation asked for; the same for every agent of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub operation: String,
    /// JSON text of the arguments.
    pub args: String,
    pub timeout: Option<Duration>,
    pub user: Option<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: Option<String>,
    #[serde(default, with = "crate::text_or_bytes")]
    pub stdin: Option<Vec<u8>>,
    pub limits: Limits,
    pub idempotent: bool,
}

/// Limits of a command; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory: Option<u64>,
    pub memory_high: Option<u64>,
    pub cpu_percent: Option<u32>,
    pub tasks: Option<u32>,
    pub output: Option<u64>,
    #[serde(default)]
    pub best_effort: bool,
}

/// A submit: one command for each named agent.
#[derive(Debug, Clone)]
pub struct Submit {
    pub agents: Vec<Name>,
    pub request: Request,
    pub expires_at: Millis,
    pub actor: Actor,
    /// Several agents, or the caller wants one: a job row is made and the commands carry its id.
    pub as_job: bool,
    pub idempotency: Option<Idempotency>,
    pub now: Millis,
}

/// A key that makes a repeated request the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    /// Hash of everything in the request that matters.
    pub fingerprint: [u8; 32],
}

/// The answer to a submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    pub job: Option<JobId>,
    pub commands: Vec<CommandId>,
    /// The same key was used before with the same request: nothing new was made.
    pub replayed: bool,
}

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
    /// `None`: the agent's default.
    pub grace: Option<Duration>,
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

/// What a reader finds at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputRead {
    Bytes(Bytes),
    /// Bytes that no longer exist; reading goes on behind them.
    Gap(Gap),
    /// Nothing is stored at this offset yet, or the stream ends here.
    Nothing,
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

/// One change, as `/events` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub seq: u64,
    pub at: Millis,
    /// e.g. `command.queued`, `command.running`, `agent.connected`.
    pub kind: String,
    pub agent: Option<Name>,
    pub command: Option<CommandId>,
    /// JSON text.
    pub body: String,
}

/// One row of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    pub seq: u64,
    pub at: Millis,
    pub actor: Actor,
    pub action: String,
    pub object: String,
    /// `done` or `refused`.
    pub outcome: String,
    /// JSON text.
    pub details: String,
    pub hash: [u8; 32],
}

/// An operator's token; the secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub scope: Scope,
    pub created_at: Millis,
    pub created_by: Actor,
    pub expires_at: Option<Millis>,
    pub revoked_at: Option<Millis>,
    pub last_used_at: Option<Millis>,
}

/// What a token may do at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Start and cancel commands, and read.
    Run,
    /// Read.
    Read,
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

/// What became of a submit to one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    pub submitted: Submitted,
    /// The row as it was committed; `None` when the request was made before.
    pub command: Option<Command>,
}

/// A command that waits to be sent, or to be cancelled, on a connected agent.
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
}

/// Where the store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub position: StorePosition,
    pub last_event: u64,
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

/// A late report about a command that the manager had ended itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub command: CommandId,
    pub at: Millis,
    /// JSON text of the [`End`].
    pub body: String,
}

/// How far a stream has come after an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub command: CommandId,
    pub stream: StreamName,
    /// The offset behind the last stored byte or gap.
    pub length: u64,
}

/// Which events a reader wants; empty fields want all.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub agent: Option<Name>,
    pub command: Option<CommandId>,
    /// Only kinds that start with this text.
    pub kind_prefix: Option<String>,
}

/// How long the past is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub commands: Duration,
    pub events: Duration,
    /// `None`: for ever.
    pub audit: Option<Duration>,
}

/// What a round of pruning removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    pub commands: usize,
    pub events: usize,
    pub audit: usize,
    pub keys: usize,
    pub agents: usize,
}

/// How many commands stand in each phase.
pub type PhaseCounts = Vec<(Phase, u64)>;

/// What `audit` writes down beside the changes that write their own rows.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub actor: Actor,
    pub action: String,
    pub object: String,
    pub outcome: AuditOutcome,
    /// JSON text.
    pub details: String,
}

/// Whether an audited action took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    Done,
    Refused,
}

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub id: String,
    pub hash: [u8; 32],
    pub name: String,
    pub scope: Scope,
    pub expires_at: Option<Millis>,
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
