//! A manager's inner house without its doors: store, registry, service, fanout. Each test has its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::HelloParams;
use common::id::{CommandId, Generation, Name, Uid};
use common::shutdown::{Shutdown, Tasks};
use common::tls::{AgentPeer, Identity, LinkPeer, Role};
use common::version::capability;
use manager::ca::Authority;
use manager::fanout::{self, Wake};
use manager::link::greeting::greet;
use manager::link::knocks::Paces;
use manager::link::pace::Pace;
use manager::metrics::Metrics;
use manager::papers::Papers;
use manager::registry::Registry;
use manager::service::seals::Seals;
use manager::service::{Caller, Parts, Service, Settings};
use store::Store;
use store::types::{Actor, Request};
use tempfile::TempDir;

use crate::peer::Peer;

/// What a wait for a condition may take before the test fails.
pub const BOUND: Duration = Duration::from_secs(20);
/// The one boot of scripted hosts.
pub const BOOT: &str = "boot-1";
/// No bound on how often hosts ask to join: what tests of other things need.
const UNBOUNDED: Pace = Pace { burst: u32::MAX, interval: Duration::ZERO };

pub struct House {
    pub service: Service,
    pub store: Store,
    pub registry: Registry,
    pub authority: Arc<Authority>,
    pub papers: Arc<Papers>,
    pub tasks: Tasks,
    pub shutdown: Shutdown,
    pub admin: Caller,
    /// Goes with the house.
    dir: TempDir,
}

impl House {
    pub async fn build() -> Self {
        Self::build_with(Self::settings()).await
    }

    pub async fn build_with(settings: Settings) -> Self {
        Self::build_in(tempfile::tempdir().unwrap(), settings).await
    }

    pub fn settings() -> Settings {
        Settings {
            link_addresses: vec!["m1:7051".to_owned()],
            seals: Seals::of(&[1; 32]).unwrap(),
            knocks: Paces { address: UNBOUNDED, overall: UNBOUNDED },
            ..Settings::default()
        }
    }

    /// Ends this manager and starts another on the same folder.
    pub async fn restarted(self) -> Self {
        self.restarted_with_key(1).await
    }

    /// The same, and what was sealed with another key cannot be opened any more; 1 is the first.
    pub async fn restarted_with_key(self, key: u8) -> Self {
        self.shutdown.request();
        assert_eq!(self.tasks.join(BOUND).await, Vec::<&str>::new(), "nobody is late");
        self.store.close().await;
        let settings = Settings { seals: Seals::of(&[key; 32]).unwrap(), ..Self::settings() };
        Self::build_in(self.dir, settings).await
    }

    /// What the manager has on its disk.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    async fn build_in(dir: TempDir, settings: Settings) -> Self {
        let store = Store::open(dir.path()).await.unwrap();
        let now = Duration::from_millis(common::clock::unix_ms());
        let authority = Arc::new(Authority::open(dir.path(), &store.identity().cluster, now).unwrap());
        let papers = Arc::new(Papers::new(Arc::clone(&authority), "m1".parse().unwrap(), Vec::new()).unwrap());
        let (registry, shutdown, tasks) = (Registry::new(), Shutdown::new(), Tasks::new());
        let service = Service::new(Parts {
            store: store.clone(),
            registry: registry.clone(),
            papers: Arc::clone(&papers),
            settings,
            metrics: Arc::new(Metrics::default()),
            shutdown: shutdown.clone(),
            wake: Wake::new(),
        });
        tasks.spawn("fanout", fanout::run(service.clone(), shutdown.clone()));
        service.load_rights().await.unwrap();
        let admin = Caller { actor: Actor("admin".to_owned()), ..Caller::local(0) };
        Self { service, store, registry, authority, papers, tasks, shutdown, admin, dir }
    }

    /// Makes an agent and answers its identity. The first key it shows is bound to it, as with agents of older releases.
    pub async fn agent(&self, name: &str) -> Identity {
        let name: Name = name.parse().unwrap();
        let (agent, _) = self.store.ensure_agent(&name, &self.admin.actor, now_ms()).await.unwrap();
        self.identity(name.as_str(), agent.generation)
    }

    pub fn identity(&self, name: &str, generation: Generation) -> Identity {
        Identity { cluster: self.store.identity().cluster, role: Role::Agent, name: name.parse().unwrap(), generation }
    }

    /// Opens a byte stream as the agent with the one key that hosts here have, without a word yet.
    pub fn dial(&self, identity: &Identity, port: u16) -> Peer {
        self.dial_as(LinkPeer::Agent(agent_peer(identity)), SocketAddr::from(([10, 0, 0, 1], port)))
    }

    /// Opens a byte stream as whoever TLS has proven it is.
    pub fn dial_as(&self, peer: LinkPeer, address: SocketAddr) -> Peer {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let (service, cluster) = (self.service.clone(), self.store.identity().cluster);
        self.tasks.spawn("session", async move {
            if let Ok(greeted) = greet(far, &peer, &cluster, address).await {
                // A refusal is seen by the peer, which is what tests look at.
                let _ = greeted.serve(&service).await;
            }
        });
        Peer::new(near)
    }

    pub fn hello(&self, identity: &Identity, journal: u8) -> HelloParams {
        HelloParams {
            name: identity.name.clone(),
            cluster: identity.cluster.clone(),
            boot_id: BOOT.to_owned(),
            journal: Uid([journal; 16]),
            incarnation: self.store.identity().incarnation.0,
            // What an agent can have heard before its first session with this manager.
            store_position: 0,
            cores: 2,
            memory_bytes: 1 << 30,
            labels: BTreeMap::new(),
            agent_version: "0.1.0".to_owned(),
            isolation: "cgroup".to_owned(),
            capabilities: capability::NEEDS.map(str::to_owned).into(),
            bundle_hash: None,
        }
    }

    /// Connects, says hello and settles an empty inventory.
    pub async fn connect(&self, identity: &Identity, journal: u8) -> Peer {
        let mut peer = self.dial(identity, 1000 + u16::from(journal));
        peer.hello(&self.hello(identity, journal)).await;
        peer.welcome().await;
        peer.settle(Vec::new()).await;
        peer
    }

    /// Starts `command.run true` on one agent.
    pub async fn submit(&self, name: &str) -> CommandId {
        let submitted =
            self.service.submit(&self.admin, vec![name.parse().unwrap()], request(), None, false, None).await.unwrap();
        *submitted.commands.first().unwrap()
    }

    pub async fn phase(&self, id: CommandId) -> String {
        self.service.command(&self.admin, id).await.unwrap().command.phase.to_string()
    }
}

/// An agent as TLS has proven it, with the one key that hosts here have.
pub fn agent_peer(identity: &Identity) -> AgentPeer {
    let not_after = Duration::from_millis(now_ms()) + Duration::from_secs(3600);
    AgentPeer { identity: identity.clone(), expired: false, spki: [7; 32], not_after }
}

pub fn now_ms() -> u64 {
    common::clock::unix_ms()
}

pub fn request() -> Request {
    Request { operation: "command.run".to_owned(), args: r#"{"run":["true"]}"#.to_owned(), ..Request::default() }
}

/// Waits until a value is as wanted.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let watched = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(BOUND, watched).await {
        Ok(found) => found,
        Err(_) => panic!("not seen in time: {what}"),
    }
}
