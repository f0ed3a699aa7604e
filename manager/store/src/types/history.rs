//! The past and who may look at it: events, audit, tokens, retention.

use std::time::Duration;

use common::id::{CommandId, Name};
use serde::{Deserialize, Serialize};

use super::fleet::{Actor, Millis};

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

/// Which events a reader wants; empty fields want all.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub agent: Option<Name>,
    pub command: Option<CommandId>,
    /// Only kinds that start with this text.
    pub kind_prefix: Option<String>,
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

/// A place in the chain of the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPoint {
    pub seq: u64,
    /// Hash of the row, and with it of everything before.
    pub hash: [u8; 32],
}

/// What a check of the whole audit found in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditVerified {
    /// The last row that retention removed, 0 when it removed none.
    pub anchor: u64,
    /// Rows that hold.
    pub rows: u64,
    pub head: AuditPoint,
    /// Points that the chain goes through; those that retention has passed are not counted.
    pub points: u64,
}

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

/// An operator's token; the secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub scope: Scope,
    /// Roles that bound it further.
    pub roles: Vec<String>,
    pub created_at: Millis,
    pub created_by: Actor,
    pub expires_at: Option<Millis>,
    pub revoked_at: Option<Millis>,
    pub last_used_at: Option<Millis>,
}

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub id: String,
    pub hash: [u8; 32],
    pub name: String,
    pub scope: Scope,
    pub roles: Vec<String>,
    pub expires_at: Option<Millis>,
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
    /// Idempotency keys.
    pub keys: usize,
    pub agents: usize,
    pub join_tokens: usize,
    pub operators: usize,
}
