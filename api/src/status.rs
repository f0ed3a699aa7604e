//! How the manager is, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// How the manager is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// Version of the manager's program.
    pub version: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Agents it knows.
    pub agents: u64,
    /// Agents that are connected now.
    pub connected: u64,
    /// Commands by phase.
    pub commands: BTreeMap<String, u64>,
    /// How far the store has come.
    pub store_position: u64,
    /// Which life of the store this is.
    pub incarnation: u64,
    /// It is about to stop: no new work is taken.
    pub draining: bool,
    /// What does not work as it should; empty is good.
    pub degraded: Vec<String>,
    /// What runs in the background.
    pub background: Vec<BackgroundWork>,
}

/// One kind of work in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackgroundWork {
    /// Its name.
    pub name: String,
    /// When it last ended.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub last_run: Option<Time>,
    /// What it did or why it failed.
    pub last_result: Option<String>,
}
