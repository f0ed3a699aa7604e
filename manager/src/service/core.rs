//! The service as a handle: what every noun's file stands on.

use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use common::clock;
use common::id::Generation;
use common::shutdown::Shutdown;
use store::types::{EventFilter, Judge, Millis};
use store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::callers::TokenCache;
use super::error::ServiceError;
use super::refusals::Refusals;
use super::rights::Rights;
use super::seals::Seals;
use super::site::SiteSource;
use super::snapshot;
use super::time::ManagerTime;
use crate::audit::Keeper;
use crate::ca::Authority;
use crate::fanout::Wake;
use crate::limits::{CERTIFICATE_VALID, LOOK_BACK};
use crate::link::knocks::{Knocks, Paces};
use crate::metrics::Metrics;
use crate::papers::Papers;
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
    /// What secrets of commands are sealed with.
    pub seals: Seals,
    /// How often those without a certificate may ask for one.
    pub knocks: Paces,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            link_addresses: Vec::new(),
            lost_after: Duration::from_secs(7 * 24 * 3600),
            certificate_valid: CERTIFICATE_VALID,
            heartbeat: None,
            max_agents_per_request: 20_000,
            seals: Seals::default(),
            knocks: Paces::default(),
        }
    }
}

/// What a service is made of.
pub struct Parts {
    /// Where the truth is.
    pub store: Store,
    /// Who is connected here.
    pub registry: Registry,
    /// Who issues certificates, and what the ports show.
    pub papers: Arc<Papers>,
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
    /// Who may do what; whoever changes something of it holds `changing`.
    rights: watch::Sender<Arc<Rights>>,
    /// Which revision is in force, for those whom no other change of rights concerns.
    site: watch::Sender<u64>,
    changing: tokio::sync::Mutex<()>,
    judge: Judge,
    site_source: SiteSource,
    knocks: Mutex<Knocks>,
    /// Held while the certificate authority takes a step.
    rotating: tokio::sync::Mutex<()>,
    /// Who signs the head of the audit; houses without a folder of their own have nobody.
    keeper: OnceLock<Keeper>,
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
        let rights = watch::Sender::new(Arc::<Rights>::default());
        let judge = snapshot::judge(rights.subscribe());
        let knocks = Knocks::new(parts.settings.knocks, Instant::now());
        Self {
            inner: Arc::new(Inner {
                parts,
                tokens: TokenCache::default(),
                refusals: Refusals::default(),
                time: ManagerTime::new(clock::unix_ms()),
                rights,
                site: watch::Sender::new(0),
                changing: tokio::sync::Mutex::default(),
                judge,
                site_source: SiteSource::default(),
                knocks: Mutex::new(knocks),
                rotating: tokio::sync::Mutex::default(),
                keeper: OnceLock::new(),
                draining: AtomicBool::new(false),
                ready: AtomicBool::new(false),
                started: Instant::now(),
                restored: tokio::sync::Mutex::new(false),
            }),
        }
    }

    /// Takes a change to its end, whether or not its caller stays: what was committed must not lack what belongs behind it,
    /// such as the snapshot without a revoked credential.
    ///
    /// # Errors
    /// Those of the change.
    pub(super) async fn to_its_end<T, F>(&self, change: impl FnOnce(Self) -> F) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        #[expect(
            clippy::disallowed_methods,
            reason = "a change goes on to its end when its caller leaves; it is bounded"
        )]
        let changing = tokio::spawn(change(self.clone()));
        match changing.await {
            Ok(done) => done,
            // As if it had been awaited in place.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only the end of the process stops it.
            Err(_) => Err(ServiceError::Draining),
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

    /// Gives the audit its keeper: once, before anything is served.
    pub(crate) fn keep_audit(&self, keeper: Keeper) {
        // A second one would be a mistake of the wiring; the first goes on.
        let _ = self.inner.keeper.set(keeper);
    }

    pub(super) fn keeper(&self) -> Option<&Keeper> {
        self.inner.keeper.get()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.inner.parts.registry
    }

    /// What secrets of commands are sealed with.
    #[must_use]
    pub fn seals(&self) -> &Seals {
        &self.inner.parts.settings.seals
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.parts.settings
    }

    pub(crate) fn papers(&self) -> &Arc<Papers> {
        &self.inner.parts.papers
    }

    pub(crate) fn authority(&self) -> &Arc<Authority> {
        self.inner.parts.papers.authority()
    }

    pub(super) fn rotating(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.rotating
    }

    /// Takes the turn of an address that asks for a certificate without having a valid one.
    pub(super) fn knock(&self, address: IpAddr) -> bool {
        self.inner.knocks.lock().unwrap_or_else(PoisonError::into_inner).knock(address, Instant::now())
    }

    /// Takes the turn of an agent that asks for a certificate outside of a session.
    pub(super) fn recover_turn(&self, agent: Generation) -> bool {
        self.inner.knocks.lock().unwrap_or_else(PoisonError::into_inner).recover(agent, Instant::now())
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

    /// Who may do what, as of now.
    #[must_use]
    pub fn rights(&self) -> Arc<Rights> {
        self.inner.rights.borrow().clone()
    }

    /// Wakes when somebody's rights may have changed.
    #[must_use]
    pub fn rights_changed(&self) -> watch::Receiver<Arc<Rights>> {
        self.inner.rights.subscribe()
    }

    /// Wakes when another revision of the site is in force, and not at other changes of rights: a fleet that joins must not
    /// wake every session for every host.
    #[must_use]
    pub fn site_changed(&self) -> watch::Receiver<u64> {
        self.inner.site.subscribe()
    }

    pub(super) fn site_slot(&self) -> &watch::Sender<u64> {
        &self.inner.site
    }

    pub(super) fn rights_slot(&self) -> &watch::Sender<Arc<Rights>> {
        &self.inner.rights
    }

    /// Held by whoever changes what rights are made of, so that no change is lost.
    pub(super) fn changing(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.changing
    }

    pub(super) fn site_source(&self) -> &SiteSource {
        &self.inner.site_source
    }

    /// What the store asks before it hands out a command.
    pub(super) fn judge(&self) -> &Judge {
        &self.inner.judge
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
