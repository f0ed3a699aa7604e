//! The wish to stop a command, and what becomes of it.

use common::config::HumanDuration;
use common::model::Phase;
use serde::{Deserialize, Serialize};

use super::command::Command;

/// A wish to stop a command, as `DELETE /agents/{name}/commands/{id}` and `POST /commands/{id}/cancel` take it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Why; shown with the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it may take to end by itself before it is killed; when absent the command's own, else 10 s. A second
    /// cancel without it skips what is left; one with it counts only where it is shorter than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10s"))]
    pub grace: Option<HumanDuration>,
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
