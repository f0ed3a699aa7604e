//! Commands as JSON: the request that starts one and the answer that shows one, the same at every door.

use std::collections::BTreeMap;

use common::config::HumanDuration;
use common::id::{Name, Uid};
use common::model::{Phase, StreamName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::time::Time;

/// The trailer of a raw output that ended before its stream did: the offset at which to go on.
pub const NEXT_OFFSET: &str = "paprika-next-offset";

/// What to run, as `POST /agents/{name}/commands` takes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// The operation, for example `command.run` or `agent.ping`.
    #[cfg_attr(feature = "openapi", schema(example = "command.run"))]
    pub operation: String,
    /// Arguments of the operation. `command.run` takes `run` (a list of words) or `shell` (one line).
    #[serde(default = "no_args")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object, example = json!({"run": ["uname", "-a"]})))]
    pub args: Value,
    /// How long it may run; no timeout when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30s"))]
    pub timeout: Option<HumanDuration>,
    /// How long it may wait for its start; 24 hours when absent, at most 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "1h"))]
    pub expires_in: Option<HumanDuration>,
    /// The user it runs as; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Variables added to its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Its working directory; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Its standard input as text; empty when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Its standard input as base64, for bytes that are not text. Only one of `stdin` and `stdin_b64` may be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_b64: Option<String>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsRequest>,
    /// Running it twice does no harm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
}

/// The same request for several agents, as `POST /commands` takes it: one job, one command for each agent.
///
/// The fields of [`CommandRequest`] are repeated here because a flattened struct cannot refuse unknown fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// The agents, each once.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>, example = json!(["web1", "web2"])))]
    pub agents: Vec<Name>,
    /// See [`CommandRequest::operation`].
    #[cfg_attr(feature = "openapi", schema(example = "command.run"))]
    pub operation: String,
    /// See [`CommandRequest::args`].
    #[serde(default = "no_args")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object, example = json!({"run": ["uname", "-a"]})))]
    pub args: Value,
    /// See [`CommandRequest::timeout`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30s"))]
    pub timeout: Option<HumanDuration>,
    /// See [`CommandRequest::expires_in`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "1h"))]
    pub expires_in: Option<HumanDuration>,
    /// See [`CommandRequest::user`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// See [`CommandRequest::env`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// See [`CommandRequest::cwd`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// See [`CommandRequest::stdin`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// See [`CommandRequest::stdin_b64`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_b64: Option<String>,
    /// See [`CommandRequest::limits`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsRequest>,
    /// See [`CommandRequest::idempotent`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
}

impl JobRequest {
    /// Sends `request` to several agents.
    #[must_use]
    pub fn new(agents: Vec<Name>, request: CommandRequest) -> Self {
        let CommandRequest {
            operation,
            args,
            timeout,
            expires_in,
            user,
            env,
            cwd,
            stdin,
            stdin_b64,
            limits,
            idempotent,
        } = request;
        Self { agents, operation, args, timeout, expires_in, user, env, cwd, stdin, stdin_b64, limits, idempotent }
    }

    /// Takes the agents and what each of them is to run apart.
    #[must_use]
    pub fn split(self) -> (Vec<Name>, CommandRequest) {
        let Self { agents, operation, args, timeout, expires_in, user, env, cwd, stdin, stdin_b64, limits, idempotent } =
            self;
        let request = CommandRequest {
            operation,
            args,
            timeout,
            expires_in,
            user,
            env,
            cwd,
            stdin,
            stdin_b64,
            limits,
            idempotent,
        };
        (agents, request)
    }
}

fn no_args() -> Value {
    Value::Object(serde_json::Map::new())
}

/// What a command may use; absent is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LimitsRequest {
    /// Memory it may not exceed, with a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "256M"))]
    pub memory: Option<String>,
    /// Memory from which on it is slowed down, with a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "200M"))]
    pub memory_high: Option<String>,
    /// Share of one core; may exceed 100 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "50%"))]
    pub cpu: Option<String>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = 64))]
    pub tasks: Option<u32>,
    /// Bytes of output that are kept, with a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "256M"))]
    pub output: Option<String>,
    /// Run it even where a limit cannot be enforced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub best_effort: bool,
}

/// A wish to stop a command, as `DELETE /agents/{name}/commands/{id}` and `POST /commands/{id}/cancel` take it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Why; shown with the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it may take to end by itself before it is killed; the agent's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10s"))]
    pub grace: Option<HumanDuration>,
}

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
    /// Why it is held back.
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
    /// Running it twice does no harm.
    pub idempotent: bool,
    /// When the agent held it durably.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub accepted_at: Option<Time>,
    /// When its process began.
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
    /// Whether the kernel killed for want of memory.
    pub oom: bool,
    /// What went wrong, where it is not the exit code that says so.
    pub error: Option<CommandError>,
    /// Who wanted it stopped.
    pub cancel: Option<Cancel>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// From the start of its process to its end.
    pub duration_ms: Option<u64>,
    /// Processor time.
    pub cpu_ms: Option<u64>,
    /// Largest memory at one time, in bytes.
    pub memory_peak: Option<u64>,
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

/// A piece of a stream, the data of the SSE event `output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutputChunk {
    /// The stream.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::stream))]
    pub stream: StreamName,
    /// Where the piece begins.
    pub offset: u64,
    /// The bytes in base64; empty for a gap.
    #[serde(default)]
    pub b64: String,
    /// Bytes that no longer exist, from `offset` on; 0 for a piece with bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gap: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
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

/// The answer to a cancel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CancelAnswer {
    /// What became of the wish.
    pub answer: CancelOutcome,
    /// The phase in which the wish found the command.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::phase))]
    pub phase: Phase,
    /// The command as it is now.
    pub command: Command,
}

/// What became of a wish to stop a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CancelOutcome {
    /// It had never been sent: it is cancelled and will never run.
    Cancelled,
    /// Its agent must be told; the wish is durable.
    CancelPending,
    /// It was over before.
    AlreadyFinal,
}

/// How far each stream of a command was read: the id of SSE events and `Last-Event-ID`, `stdout=N;stderr=M`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputCursor(pub BTreeMap<StreamName, u64>);

impl OutputCursor {
    /// The next offset of a stream; 0 when none was read of it.
    #[must_use]
    pub fn next(&self, stream: StreamName) -> u64 {
        self.0.get(&stream).copied().unwrap_or(0)
    }

    /// Remembers the next offset of a stream.
    pub fn advance(&mut self, stream: StreamName, next: u64) {
        self.0.insert(stream, next);
    }
}

impl std::fmt::Display for OutputCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (stream, next)) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { ";" };
            write!(f, "{between}{stream}={next}")?;
        }
        Ok(())
    }
}

/// A text is not a position in the output of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position in the output looks like stdout=123;stderr=0")]
pub struct NotACursor;

impl std::str::FromStr for OutputCursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut cursor = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (stream, next) = part.split_once('=').ok_or(NotACursor)?;
            let stream = stream.trim().parse().map_err(|_| NotACursor)?;
            let digits = next.trim();
            if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return Err(NotACursor);
            }
            if cursor.0.insert(stream, digits.parse().map_err(|_| NotACursor)?).is_some() {
                return Err(NotACursor);
            }
        }
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nonsense_is_refused() {
        let cursor: OutputCursor = "stdout=12;stderr=0".parse().unwrap();
        assert_eq!(
            (cursor.next(StreamName::Stdout), cursor.next(StreamName::Stderr), cursor.next(StreamName::Steps)),
            (12, 0, 0)
        );
        assert_eq!(cursor.to_string(), "stdout=12;stderr=0");
        assert_eq!("".parse(), Ok(OutputCursor::default()));
        for bad in
            ["stdout", "stdout=", "stdout=-1", "stdout=+1", "out=1", "stdout=1;stdout=2", "stdout=99999999999999999999"]
        {
            assert_eq!(bad.parse::<OutputCursor>(), Err(NotACursor), "{bad}");
        }
    }

    #[test]
    fn a_request_refuses_unknown_fields_and_fills_defaults() {
        let request: CommandRequest = serde_json::from_str(r#"{"operation":"agent.ping"}"#).unwrap();
        assert_eq!(request.args, serde_json::json!({}));
        let error = serde_json::from_str::<CommandRequest>(r#"{"operation":"agent.ping","timout":"1s"}"#).unwrap_err();
        assert!(error.to_string().starts_with("unknown field `timout`"), "{error}");
    }

    #[test]
    fn a_job_is_the_same_request_for_several_agents() {
        let text = r#"{"operation":"command.run","args":{"run":["true"]},"timeout":"30s","expires_in":"1h","user":"nobody",
            "env":{"K":"V"},"cwd":"/","stdin":"text","limits":{"memory":"256M","cpu":"50%","tasks":64,"output":"256M"},"idempotent":true}"#;
        let request: CommandRequest = serde_json::from_str(text).unwrap();
        let agents: Vec<Name> = vec!["web1".parse().unwrap()];
        assert_eq!(JobRequest::new(agents.clone(), request.clone()).split(), (agents, request));
    }
}
