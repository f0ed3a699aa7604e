//! The service as a handle: what every noun's file stands on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::clock;
use common::shutdown::Shutdown;
use store::types::{EventFilter, Millis};
use store::{Store, StoreError};
use tokio::time::Instant;

use super::callers::TokenCache;
use super::refusals::Refusals;
use super::time::ManagerTime;
use crate::ca::Authority;
use crate::fanout::Wake;
use crate::limits::LOOK_BACK;
use crate::metrics::Metrics;
use crate::registry::Registry;

/// The part of the configuration that the service decides by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What agents are told to dial, `host:port`.
    pub link_addresses: Vec<String>,
    /// How long an agent may be silent before what it holds is given up.
    pub lost_after: Duration,
    /// How long the certificate of an agent is valid.
    pub certificate_valid: Duration,
    /// How long a session may be silent before it is pinged; `None` means by the size of the fleet.
    pub heartbeat: Option<Duration>,
    /// Agents that one request may name.
    pub max_agents_per_request: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            link_addresses: Vec::new(),
            lost_after: Duration::from_secs(7 * 24 * 3600),
            certificate_valid: Duration::from_secs(365 * 24 * 3600),
            heartbeat: None,
            max_agents_per_request: 20_000,
        }
    }
}

/// What a service is made of.
pub struct Parts {
    /// Where the truth is.
    pub store: Store,
    /// Who is connected here.
    pub registry: Registry,
    /// Who issues certificates.
    pub authority: Arc<Authority>,
    /// The decisions of the operator.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Ends waits.
    pub shutdown: Shutdown,
    /// Wakes the fanout.
    pub wake: Wake,
}

/// A cheap handle on everything that may be done.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    tokens: TokenCache,
    refusals: Refusals,
    time: ManagerTime,
    draining: AtomicBool,
    ready: AtomicBool,
    started: Instant,
    /// Held while a restored store is given its new life; true once this process did that.
    restored: tokio::sync::Mutex<bool>,
}

impl Service {
    /// Puts a service together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                parts,
                tokens: TokenCache::default(),
                refusals: Refusals::default(),
                time: ManagerTime::new(clock::unix_ms()),
                draining: AtomicBool::new(false),
                ready: AtomicBool::new(false),
                started: Instant::now(),
                restored: tokio::sync::Mutex::new(false),
            }),
        }
    }

    /// Tells whether the manager is stopping: no new work is taken.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed) || self.shutdown().is_requested()
    }

    /// Starts to refuse new work.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// Tells whether everything that serves is up.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.inner.ready.load(Ordering::Relaxed) && !self.draining()
    }

    /// Records that everything that serves is up.
    pub fn set_ready(&self) {
        self.inner.ready.store(true, Ordering::Relaxed);
    }

    /// Ends waits of followers; every long wait of a door listens to it.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.inner.parts.shutdown
    }

    /// What is counted, for the doors that count too.
    #[must_use]
    pub fn counters(&self) -> &Arc<Metrics> {
        &self.inner.parts.metrics
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.inner.parts.registry
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.parts.settings
    }

    pub(super) fn authority(&self) -> &Arc<Authority> {
        &self.inner.parts.authority
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.inner.parts.wake
    }

    pub(super) fn tokens_kept(&self) -> &TokenCache {
        &self.inner.tokens
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    pub(super) fn restored(&self) -> &tokio::sync::Mutex<bool> {
        &self.inner.restored
    }

    pub(super) fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// Goes on with the time from where an earlier process had come; before anybody is told the time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn carry_time_on(&self) -> Result<(), StoreError> {
        let last = self.store().position().last_event;
        let after = last.saturating_sub(LOOK_BACK);
        let past = self.store().events(after, LOOK_BACK as usize, EventFilter::default()).await?;
        self.inner.time.go_on(&past);
        Ok(())
    }

    /// How far the wall clock is behind what agents were told, where that is worth a word.
    pub(super) fn clock_behind(&self) -> Option<Duration> {
        self.inner.time.behind()
    }

    /// The manager's time. It never goes back.
    pub(crate) fn now(&self) -> Millis {
        self.inner.time.now(clock::unix_ms())
    }
}
