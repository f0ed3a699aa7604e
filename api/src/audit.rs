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
