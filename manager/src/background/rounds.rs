//! The rounds: expiry of what was never sent, giving up what lost agents held, signing the audit, and retention.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use common::error::Chain;
use common::shutdown::{Shutdown, Tasks};
use store::StoreError;
use store::types::{Pruned, Retention};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::metrics::LastRun;
use crate::service::Service;

/// How late an expiry may be seen; nothing expired is ever sent, whatever this says.
const EXPIRY_EVERY: Duration = Duration::from_secs(2);
/// How often agents that are silent for too long are looked for; the limit itself is days.
const LOST_EVERY: Duration = Duration::from_secs(60);
/// How often is looked whether the head of the audit is to be signed; when it is, the keeper knows.
const AUDIT_EVERY: Duration = Duration::from_secs(10);
/// How often the past is pruned.
const RETENTION_EVERY: Duration = Duration::from_secs(600);

/// What the rounds go by.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// How long the past is kept.
    pub retention: Retention,
    /// How long an agent may be silent.
    pub lost_after: Duration,
}

/// Starts all rounds; they end with the shutdown.
pub fn run(service: &Service, rounds: Rounds, shutdown: &Shutdown, tasks: &Tasks) {
    let expiry = service.clone();
    repeat("background.expiry", EXPIRY_EVERY, service, shutdown, tasks, move || {
        let service = expiry.clone();
        async move { service.store().expire_queued(service.now()).await.map(|count| format!("{count} expired")) }
    });
    let lost = service.clone();
    repeat("background.lost", LOST_EVERY, service, shutdown, tasks, move || {
        let service = lost.clone();
        async move {
            let given_up = service.store().give_up_lost(service.now(), rounds.lost_after).await?;
            if !given_up.is_empty() {
                tracing::warn!(
                    commands = given_up.len(),
                    "commands of agents that were silent for too long ended as interrupted"
                );
            }
            Ok(format!("{} given up", given_up.len()))
        }
    });
    let audit = service.clone();
    repeat("background.audit", AUDIT_EVERY, service, shutdown, tasks, move || {
        let service = audit.clone();
        async move { service.checkpoint().await.map(|written| if written { "signed" } else { "nothing to sign" }) }
    });
    let retention = service.clone();
    repeat("background.retention", RETENTION_EVERY, service, shutdown, tasks, move || {
        let service = retention.clone();
        async move {
            let pruned = service.store().prune(rounds.retention, service.now()).await?;
            let Pruned { commands, events, audit, keys, agents, join_tokens, operators } = pruned;
            Ok(format!(
                "removed {commands} commands, {events} events, {audit} audit rows, {keys} keys, {agents} agents, \
                 {join_tokens} join tokens, {operators} certificates of operators"
            ))
        }
    });
}

/// Runs one piece of work again and again, and records how each run went. A run that failed is tried again next time.
fn repeat<W, F, T>(name: &'static str, every: Duration, service: &Service, shutdown: &Shutdown, tasks: &Tasks, work: W)
where
    W: Fn() -> F + Send + 'static,
    F: Future<Output = Result<T, StoreError>> + Send,
    T: Display + Send,
{
    let (service, shutdown) = (service.clone(), shutdown.clone());
    tasks.spawn(name, async move {
        let mut timer = interval(every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = timer.tick() => {}
            }
            let began = Instant::now();
            let ended = work().await;
            let error = ended.as_ref().err().map(|error| Chain(error).to_string());
            // A store that stays full would fill the log every two seconds.
            match &error {
                Some(error) if !failing => {
                    tracing::error!(work = name, error, "background work failed; it is tried again")
                }
                None if failing => tracing::info!(work = name, "background work goes on"),
                _ => {}
            }
            failing = error.is_some();
            let did = ended.map(|did| did.to_string()).unwrap_or_default();
            service.counters().ran(LastRun { name, at: service.now(), took: began.elapsed(), did, error });
        }
    });
}
