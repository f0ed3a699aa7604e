//! How the manager is: for `paprika status`, for probes and for Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

use common::id::{Incarnation, Name, StorePosition};
use common::model::Phase;
use site::permission::Permission;

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use crate::metrics::LastRun;

/// One look at everything.
#[derive(Debug, Clone)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Name of the cluster.
    pub cluster: Name,
    /// Since the manager started.
    pub uptime: Duration,
    /// Agents in the store.
    pub agents: u64,
    /// Agents connected here.
    pub connected: u64,
    /// Commands per phase.
    pub commands: BTreeMap<Phase, u64>,
    /// How far the store has come.
    pub store_position: StorePosition,
    /// Which life of the store this is.
    pub incarnation: Incarnation,
    /// The last run of each piece of background work.
    pub background: Vec<LastRun>,
    /// No new work is taken.
    pub draining: bool,
    /// What does not work as it should, in words.
    pub degraded: Vec<String>,
}

impl Service {
    /// Looks at everything once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn status(&self, caller: &Caller) -> Result<Status, ServiceError> {
        self.must_somewhere(caller, Permission::StatusRead)?;
        let identity = self.store().identity();
        let position = self.store().position();
        let agents = self.store().agent_count().await?;
        let commands = self.store().phase_counts().await?;
        let background = self.counters().background();
        let failed = background
            .iter()
            .filter_map(|run| run.error.as_ref().map(|error| format!("background work {} failed: {error}", run.name)));
        let behind = self.clock_behind().map(|span| {
            format!(
                "the wall clock is {} behind the time that agents were told; times are shown ahead of it",
                common::config::HumanDuration(span)
            )
        });
        let degraded = failed.chain(behind).collect();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION"),
            cluster: identity.cluster,
            uptime: self.uptime(),
            agents,
            connected: self.registry().count() as u64,
            commands: commands.into_iter().collect(),
            store_position: position.position,
            incarnation: identity.incarnation,
            background,
            draining: self.draining(),
            degraded,
        })
    }

    /// Renders every counter in the text format of Prometheus. It reads memory only, so a probe never waits for the store.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn metrics(&self, caller: &Caller) -> Result<String, ServiceError> {
        self.must_somewhere(caller, Permission::StatusRead)?;
        let position = self.store().position();
        Ok(self.counters().render(&[
            ("paprika_uptime_seconds", "Seconds since the manager started.", self.uptime().as_secs()),
            ("paprika_agents_connected", "Agents connected to this manager.", self.registry().count() as u64),
            ("paprika_store_position", "Committed changes of the store.", position.position.0),
            ("paprika_store_last_event", "Number of the newest event.", position.last_event),
            ("paprika_ready", "1 while the manager takes work.", u64::from(self.ready())),
        ]))
    }
}
