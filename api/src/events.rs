//! Events as JSON: every change, numbered in the order in which it was committed.

use common::id::Name;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::time::Time;

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its number; also the id of the SSE event.
    pub seq: u64,
    /// When it was committed.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Time,
    /// What happened, for example `command.running` or `agent.connected`.
    pub kind: String,
    /// The agent it is about.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub agent: Option<Name>,
    /// The command it is about.
    pub command: Option<u64>,
    /// More about it; its shape depends on `kind`.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub body: Value,
}
