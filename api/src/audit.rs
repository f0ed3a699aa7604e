//! The audit as JSON: who did what, chained by hashes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::time::Time;

/// One row of the audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditRow {
    /// Its number.
    pub seq: u64,
    /// When it was committed.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Time,
    /// Who.
    pub actor: String,
    /// Did what.
    pub action: String,
    /// To what.
    pub object: String,
    /// `done` or `refused`.
    pub outcome: String,
    /// More about it.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub details: Value,
    /// Hash over this row and the one before, 64 hexadecimal digits.
    pub hash: String,
}

/// What rows of the audit are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only rows of this actor.
    pub actor: Option<String>,
    /// Only rows of this action; with a dot at its end: of all actions that begin so.
    pub action: Option<String>,
    /// Only rows behind this number.
    pub after: Option<u64>,
    /// At most this many.
    pub limit: Option<u32>,
}

/// What a check of the whole audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditVerification {
    /// How many rows were checked.
    pub rows: u64,
    /// The newest row; absent when there is none.
    pub head: Option<AuditHead>,
    /// How many signed checkpoints the rows were compared with.
    pub checkpoints: u64,
    /// Checkpoints of what a restored copy of the database does not hold any more.
    #[serde(default)]
    pub lost_to_restore: u64,
    /// What checkpoints can be checked with elsewhere: an Ed25519 key, 64 hexadecimal digits.
    #[serde(default)]
    pub public_key: Option<String>,
    /// The first row that is not what it was; absent when all is well.
    pub first_bad: Option<AuditFault>,
}

/// A row of the audit by its number and hash. One that was noted elsewhere shows later whether anything before it was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditHead {
    /// Its number.
    pub seq: u64,
    /// Its hash, 64 hexadecimal digits.
    pub hash: String,
}

/// A row of the audit that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditFault {
    /// Its number, or the one it should have.
    pub seq: u64,
    /// What is wrong with it.
    pub text: String,
}

/// One line of the manager's file of checkpoints: what the audit was at a moment, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditCheckpoint {
    /// The number of the newest row then.
    pub seq: u64,
    /// Its hash, 64 hexadecimal digits.
    pub hash: String,
    /// When that was.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Time,
    /// In which life of the store; another one begins when an older copy is restored.
    pub incarnation: u64,
    /// Ed25519 signature over the other fields and the signature before, base64.
    pub signature: String,
}
