//! How the manager is.

use api::status::{BackgroundWork, Status};
use api::time::Time;

use crate::service;

/// Shows how the manager is.
pub(in crate::http) fn status(status: service::Status) -> Status {
    let background = status.background.into_iter().map(|run| BackgroundWork {
        name: run.name.to_owned(),
        last_run: Some(Time(run.at)),
        last_result: Some(run.error.map_or(run.did, |error| format!("failed: {error}"))),
    });
    Status {
        version: status.version.to_owned(),
        cluster: status.cluster.to_string(),
        uptime_seconds: status.uptime.as_secs(),
        agents: status.agents,
        connected: status.connected,
        commands: status.commands.into_iter().map(|(phase, count)| (phase.as_str().to_owned(), count)).collect(),
        store_position: status.store_position.0,
        incarnation: status.incarnation.0,
        draining: status.draining,
        degraded: status.degraded,
        background: background.collect(),
    }
}
