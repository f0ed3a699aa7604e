//! What a command may use, as it is asked for and as it is shown.

use serde::{Deserialize, Serialize};

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
