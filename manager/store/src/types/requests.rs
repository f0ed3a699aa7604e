//! What is asked for: a request, and the submit that makes commands of it.

use std::collections::BTreeMap;
use std::time::Duration;

use common::id::{CommandId, JobId, Name};
use serde::{Deserialize, Serialize};

use super::commands::Command;
use super::fleet::{Actor, Millis};
use super::secrets::Secrets;
use super::trust::Authority;

/// What the caller of an operation asked for; the same for every agent of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(default)]
    pub options: Options,
    pub idempotent: bool,
    /// Sealed from the submit on.
    #[serde(default, skip_serializing_if = "Secrets::is_none")]
    pub secrets: Secrets,
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

/// How a command begins and ends, where the caller wants it otherwise than usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub umask: Option<u32>,
    pub nice: Option<i32>,
    pub oom_score: Option<i32>,
    pub keep_strays: bool,
    pub stop_signal: Option<u32>,
    pub stop_only_main: bool,
    /// From the first signal to the kill; `None`: the agent's default.
    pub grace: Option<Duration>,
}

/// A submit: one command for each named agent.
#[derive(Debug, Clone)]
pub struct Submit {
    pub agents: Vec<Name>,
    pub request: Request,
    pub expires_at: Millis,
    pub actor: Actor,
    /// By which right; weighed again before it is sent. `None`: the manager itself.
    pub authority: Option<Authority>,
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

/// What became of a submit to one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    pub submitted: Submitted,
    /// The row as it was committed; `None` when the request was made before.
    pub command: Option<Command>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_version_0_1_wrote_is_still_read() {
        let text = r#"{"operation":"command.run","args":"{}","timeout":{"secs":30,"nanos":0},"user":null,"env":{"K":"V"},
            "cwd":"/","stdin":"text","limits":{"memory":null,"memory_high":null,"cpu_percent":null,"tasks":null,
            "output":null,"best_effort":false},"idempotent":true}"#;
        let request: Request = serde_json::from_str(text).unwrap();
        assert_eq!((request.options, request.idempotent), (Options::default(), true));
        assert_eq!((request.stdin.as_deref(), request.timeout), (Some(&b"text"[..]), Some(Duration::from_secs(30))));
    }
}
