//! A command as it is shown, alone and in lists.

use std::collections::BTreeMap;

use common::config::HumanDuration;
use common::id::{Name, Uid};
use common::model::{Phase, StreamName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::LimitsRequest;
use crate::time::Time;

/// A command and everything known about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Command {
    /// What people and URLs call it.
    #[cfg_attr(feature = "openapi", schema(example = 42))]
    pub id: u64,
    /// What machines call it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub uid: Uid,
    /// The agent it belongs to.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "web1"))]
    pub agent: Name,
    /// The operation.
    pub operation: String,
    /// Arguments of the operation.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub args: Value,
    /// Where it stands.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::phase))]
    pub phase: Phase,
    /// Why it is held back: a stable word such as `parallel_limit`; `progress` then tells its place and how many wait.
    pub waiting: Option<String>,
    /// The job it belongs to.
    pub job: Option<u64>,
    /// Which attempt of the job's work this is, from 1.
    pub attempt: u32,
    /// When it was accepted by the manager.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub created_at: Time,
    /// Who started it.
    pub created_by: String,
    /// When it will no longer be started.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub expires_at: Time,
    /// How long it may run.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub timeout: Option<HumanDuration>,
    /// The user it runs as, when one was asked for.
    pub user: Option<String>,
    /// Its working directory, when one was asked for.
    pub cwd: Option<String>,
    /// What of the request is secret: `stdin`, `env.NAME`; each shown as `(secret)`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// What it may use, when it was limited.
    pub limits: Option<LimitsRequest>,
    /// The file mode mask it began with, octal, when one was asked for.
    #[cfg_attr(feature = "openapi", schema(example = "0027"))]
    pub umask: Option<String>,
    /// What was added to its niceness, when that was asked for.
    pub nice: Option<i32>,
    /// What the kernel's killer for want of memory was told of it, when that was asked for.
    pub oom_score: Option<i32>,
    /// Processes that live on when the main one has ended are left alone.
    #[serde(default)]
    pub keep_strays: bool,
    /// The first signal when it is stopped, when another than `TERM` was asked for.
    #[cfg_attr(feature = "openapi", schema(example = "INT"))]
    pub stop_signal: Option<String>,
    /// That signal reaches the main process only.
    #[serde(default)]
    pub stop_only_main: bool,
    /// From that signal to the kill, when it was asked for.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub grace: Option<HumanDuration>,
    /// Running it twice does no harm.
    pub idempotent: bool,
    /// When the manager heard that the agent holds it durably; by the manager's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub accepted_at: Option<Time>,
    /// When its process began; by the agent's clock, and so perhaps before `accepted_at`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub started_at: Option<Time>,
    /// When its end was known.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub finished_at: Option<Time>,
    /// How far it is, where the operation says so.
    pub progress: Option<Progress>,
    /// Whether it changed its host; absent before the end.
    pub changed: Option<bool>,
    /// The exit code, when its process exited.
    pub exit_code: Option<i32>,
    /// The signal, when its process was ended by one.
    pub signal: Option<u32>,
    /// Whether that signal left a memory dump.
    #[serde(default)]
    pub core_dumped: bool,
    /// Whether the kernel killed for want of memory.
    pub oom: bool,
    /// What went wrong, where it is not the exit code that says so.
    pub error: Option<CommandError>,
    /// Who wanted it stopped.
    pub cancel: Option<Cancel>,
    /// Who wanted it paused, or wants it to go on; absent when nobody did, or when that was taken back and done.
    pub pause: Option<Pause>,
    /// Its streams by name.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::HashMap<String, Stream>))]
    pub streams: BTreeMap<StreamName, Stream>,
    /// What it used.
    pub usage: Option<Usage>,
    /// How well it is fenced in: `cgroup` or `best_effort`.
    pub isolation: Option<String>,
    /// What an operation without a process answered.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub value: Option<Value>,
    /// Observations about the end, for example survivors that had to be named.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Whether its agent is connected now.
    pub agent_reachable: bool,
}

/// How far a command is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// Parts done.
    pub current: u64,
    /// Parts in all, 0 when unknown.
    pub total: u64,
    /// What it is doing.
    pub text: String,
}

/// What went wrong with a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommandError {
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub text: String,
}

/// A wish to stop a command, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cancel {
    /// Who wanted it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When it was wished.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub at: Option<Time>,
    /// The command has not ended yet.
    pub pending: bool,
}

/// A wish that a command pauses or goes on, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pause {
    /// `true`: it is to pause; `false`: it is to go on.
    pub paused: bool,
    /// Who wanted it.
    pub by: String,
    /// When it was wished.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Time,
    /// The agent has not said that it knows.
    pub pending: bool,
    /// Why the agent would not: a stable word such as `unsupported`.
    pub refused: Option<String>,
}

/// One stream of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stream {
    /// Bytes known so far, gaps included.
    pub length: u64,
    /// Every byte is here; nothing will follow.
    pub end: bool,
    /// Ranges that no longer exist anywhere.
    pub gaps: Vec<Gap>,
}

/// A range of a stream that no longer exists anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// What a command used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// From the start of its process to its end.
    pub duration_ms: Option<u64>,
    /// Processor time.
    pub cpu_ms: Option<u64>,
    /// Largest memory at one time, in bytes.
    pub memory_peak: Option<u64>,
    /// Bytes read from devices, where the host counts them.
    pub io_read: Option<u64>,
    /// Bytes written to devices, where the host counts them.
    pub io_written: Option<u64>,
    /// Most processes and threads at one time, where the host counts them.
    pub tasks_peak: Option<u64>,
}

/// The answer to a request for several agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobStarted {
    /// The job; its commands are listed by `GET /commands?job=`.
    pub job: Option<u64>,
    /// One command for each agent, in the order of the request.
    pub commands: Vec<CommandRef>,
}

/// A command by its id and its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommandRef {
    /// See [`Command::id`].
    pub id: u64,
    /// See [`Command::agent`].
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub agent: Name,
}

/// Which commands a list shows; all of its fields together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandQuery {
    /// Only those of this agent.
    pub agent: Option<Name>,
    /// Only those in one of these phases.
    pub phases: Vec<Phase>,
    /// Only those of this operation.
    pub operation: Option<String>,
    /// Only those of this job.
    pub job: Option<u64>,
    /// Go on behind this cursor.
    pub after: Option<String>,
    /// At most this many in one page.
    pub limit: Option<u32>,
}
