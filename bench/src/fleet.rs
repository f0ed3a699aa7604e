//! The emulator: thousands of agents in one process, each with a real TLS session of its own, that answer every
//! command at once without running anything.
//!
//! It speaks the protocol through `common` like any agent. It keeps nothing: a session that ends connects again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use common::backoff::Backoff;
use common::handshake::{HelloParams, hello, read_welcome};
use common::id::{Name, Uid};
use common::limits::{MAX_FRAME, RECONNECT};
use common::link::{Lane, Reader, Writer};
use common::liveness::{Liveness, Pulse};
use common::shutdown::{Shutdown, Tasks};
use common::tls::{self, Role, TlsConnector};
use common::wire::frame::Body;
use common::wire::{CommandAck, CommandResult, Inventory, Outcome, Pong, command_ack};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

/// What one emulated agent needs to connect.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name, as in the certificate.
    pub name: Name,
    /// Certificate chain in PEM form.
    pub chain_pem: String,
    /// Private key in PEM form.
    pub key_pem: String,
}

/// Counters of a whole fleet.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions that are open now.
    pub connected: AtomicUsize,
    /// Commands answered so far.
    pub answered: AtomicU64,
    /// Attempts that failed so far.
    pub failed: AtomicU64,
}

/// A running fleet; it ends with `stop`.
pub struct Fleet {
    counters: Arc<Counters>,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Fleet {
    /// Starts to connect all members to one address.
    pub fn start(members: Vec<Member>, address: SocketAddr, ca_pem: &str, cluster: &Name) -> anyhow::Result<Self> {
        let fleet = Self { counters: Arc::default(), shutdown: Shutdown::new(), tasks: Tasks::new() };
        for member in members {
            let chain = tls::chain_from_pem(member.chain_pem.as_bytes())?;
            let key = tls::key_from_pem(member.key_pem.as_bytes())?;
            let roots = tls::roots_from_pem(ca_pem.as_bytes())?;
            let agent = Emulated {
                name: member.name,
                cluster: cluster.clone(),
                journal: Uid::random(),
                connector: TlsConnector::from(tls::link_client(chain, key, roots)?),
                address,
                counters: Arc::clone(&fleet.counters),
            };
            let shutdown = fleet.shutdown.clone();
            fleet.tasks.spawn("emulated agent", async move {
                tokio::select! {
                    () = agent.live() => {}
                    () = shutdown.requested() => {}
                }
            });
        }
        Ok(fleet)
    }

    /// What the fleet did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Waits until `count` sessions are open.
    pub async fn connected(&self, count: usize, within: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        while self.counters.connected.load(Ordering::Relaxed) < count {
            if start.elapsed() > within {
                bail!(
                    "only {} of {count} emulated agents are connected after {within:?}",
                    self.counters.connected.load(Ordering::Relaxed)
                );
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(start.elapsed())
    }

    /// Ends all sessions.
    pub async fn stop(self) {
        self.shutdown.request();
        self.tasks.join(Duration::from_secs(20)).await;
    }
}

struct Emulated {
    name: Name,
    cluster: Name,
    journal: Uid,
    connector: TlsConnector,
    address: SocketAddr,
    counters: Arc<Counters>,
}

/// Counts a session while it is open.
struct Open<'a>(&'a Counters);

impl<'a> Open<'a> {
    fn new(counters: &'a Counters) -> Self {
        counters.connected.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Emulated {
    /// Connects for ever, with the backoff of a real agent that was up for long.
    async fn live(&self) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        loop {
            let start = Instant::now();
            if self.session().await.is_err() {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            // A real session must have lived for a minute; here none lives that long, and it stands for one that did.
            if start.elapsed() > Duration::from_secs(5) {
                backoff.reset();
            }
            sleep(backoff.next()).await;
        }
    }

    async fn session(&self) -> anyhow::Result<()> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let stream = self.connector.connect(tls::manager_name(), tcp).await?;
        tls::check_link_peer(stream.get_ref().1, Role::Manager)?;
        let (near, far) = tokio::io::split(stream);
        let (mut reader, mut writer) = (Reader::new(near, MAX_FRAME), Writer::new(far));
        writer.push(Lane::Control, hello(&self.params()));
        writer.flush().await?;
        let first = reader.next().await?.context("closed before the welcome")?;
        let welcome = read_welcome(&first)?;
        writer.push(Lane::Control, Body::Inventory(Inventory { items: Vec::new(), last: true }));
        let mut open = None;
        let mut watch = Liveness::new(welcome.heartbeat, Instant::now());
        let mut wake = Instant::now();
        loop {
            tokio::select! {
                frame = reader.next() => {
                    let Some(frame) = frame? else { return Ok(()) };
                    watch.heard(Instant::now());
                    match frame.body {
                        Some(Body::Ping(ping)) => {
                            writer.reply(Lane::Control, frame.seq, Body::Pong(Pong { clock_ms: ping.clock_ms }));
                        }
                        Some(Body::Reconcile(answer)) if answer.last => open = Some(Open::new(&self.counters)),
                        Some(Body::Command(command)) => {
                            let ack = CommandAck {
                                uid: command.uid.clone(),
                                answer: command_ack::Answer::Accepted.into(),
                                ..CommandAck::default()
                            };
                            writer.reply(Lane::Control, frame.seq, Body::CommandAck(ack));
                            writer.push(Lane::Control, Body::CommandResult(CommandResult {
                                uid: command.uid,
                                id: command.id,
                                outcome: Outcome::Succeeded.into(),
                                has_exit_code: true,
                                ..CommandResult::default()
                            }));
                            self.counters.answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(Body::Bye(_)) => return Ok(()),
                        _ => {}
                    }
                }
                end = writer.drive() => match end? {},
                () = sleep_until(wake) => match watch.poll(Instant::now()) {
                    Pulse::Wait(until) => wake = until,
                    Pulse::Ping => {
                        writer.push(Lane::Control, Body::Ping(common::wire::Ping::default()));
                        wake = Instant::now() + welcome.heartbeat;
                    }
                    Pulse::Dead => bail!("the manager is silent"),
                },
            }
            // The guard counts the session as open until it is dropped.
            let _ = &open;
        }
    }

    fn params(&self) -> HelloParams {
        HelloParams {
            name: self.name.clone(),
            cluster: self.cluster.clone(),
            boot_id: "emulated".into(),
            journal: self.journal,
            incarnation: 0,
            store_position: 0,
            cores: 1,
            memory_bytes: 1 << 30,
            labels: Default::default(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            isolation: "none".into(),
            capabilities: Vec::new(),
            bundle_hash: None,
        }
    }
}
