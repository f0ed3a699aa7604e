//! A manager's inner house without its doors: store, registry, service, fanout. Each test has its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::HelloParams;
use common::id::{CommandId, Generation, Name, Uid};
use common::shutdown::{Shutdown, Tasks};
use common::tls::{Identity, Role};
use common::version::capability;
use manager::ca::Authority;
use manager::fanout::{self, Wake};
use manager::link::session::greet;
use manager::metrics::Metrics;
use manager::registry::Registry;
use manager::service::{Caller, Parts, Service, Settings};
use store::Store;
use store::types::{Actor, Request, Scope};
use tempfile::TempDir;

use crate::peer::Peer;

/// What a wait for a condition may take before the test fails.
pub const BOUND: Duration = Duration::from_secs(20);
/// The one boot of scripted hosts.
pub const BOOT: &str = "boot-1";

pub struct House {
    pub service: Service,
    pub store: Store,
    pub registry: Registry,
    pub authority: Arc<Authority>,
    pub tasks: Tasks,
    pub shutdown: Shutdown,
    pub admin: Caller,
    /// Goes with the house.
    dir: TempDir,
}

impl House {
    pub async fn build() -> Self {
        Self::build_in(tempfile::tempdir().unwrap()).await
    }

    /// Ends this manager and starts another on the same folder.
    pub async fn restarted(self) -> Self {
        self.shutdown.request();
        assert_eq!(self.tasks.join(BOUND).await, Vec::<&str>::new(), "nobody is late");
        self.store.close().await;
        Self::build_in(self.dir).await
    }

    async fn build_in(dir: TempDir) -> Self {
        let store = Store::open(dir.path()).await.unwrap();
        let now = Duration::from_millis(common::clock::unix_ms());
        let authority = Arc::new(Authority::open(dir.path(), &store.identity().cluster, now).unwrap());
        let (registry, shutdown, tasks) = (Registry::new(), Shutdown::new(), Tasks::new());
        let service = Service::new(Parts {
            store: store.clone(),
            registry: registry.clone(),
            authority: Arc::clone(&authority),
            settings: Settings { link_addresses: vec!["m1:7051".to_owned()], ..Settings::default() },
            metrics: Arc::new(Metrics::default()),
            shutdown: shutdown.clone(),
            wake: Wake::new(),
        });
        tasks.spawn("fanout", fanout::run(service.clone(), shutdown.clone()));
        let admin = Caller { actor: Actor("admin".to_owned()), scope: Scope::Admin };
        Self { service, store, registry, authority, tasks, shutdown, admin, dir }
    }

    /// Makes an agent and answers the identity of its certificate.
    pub async fn agent(&self, name: &str) -> Identity {
        let name: Name = name.parse().unwrap();
        let issued = self.service.agent_certificate(&self.admin, &name).await.unwrap();
        self.identity(name.as_str(), issued.agent.generation)
    }

    pub fn identity(&self, name: &str, generation: Generation) -> Identity {
        Identity { cluster: self.store.identity().cluster, role: Role::Agent, name: name.parse().unwrap(), generation }
    }

    /// Opens a byte stream as the agent, without a word yet.
    pub fn dial(&self, identity: &Identity, port: u16) -> Peer {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let (service, identity) = (self.service.clone(), identity.clone());
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        self.tasks.spawn("session", async move {
            let cluster = identity.cluster.clone();
            if let Ok(greeted) = greet(far, &identity, &cluster, address).await {
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
