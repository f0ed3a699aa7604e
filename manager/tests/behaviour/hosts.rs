//! Hosts before and after they are agents: over real TLS, with keys of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use common::handshake::{HelloParams, IssuedAnswer, JoinParams, WelcomeError, join_hello, read_issued};
use common::id::Name;
use common::join_token::JoinToken;
use common::tls::{
    self, AgentPeer, ClientConfig, Expected, Identity, KeyRequest, LinkPeer, TlsConnector, check_issued, manager_name,
    read_leaf,
};
use common::wire::bye::Code;
use common::wire::frame::Body;
use manager::link::admission::Caps;
use manager::link::listener::Listener;
use manager::service::JoinWish;
use tokio::net::TcpStream;

use crate::house::{House, now_ms};
use crate::peer::Peer;

/// Room for every host of a test: they all come from one address.
const CAPS: Caps = Caps { overall: 10_000, per_address: 10_000 };

/// Why a host did not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The manager said so.
    Told(Code, String),
    /// Nothing was said.
    Closed,
}

/// A host with a key, and with a certificate once it has one.
#[derive(Debug, Clone)]
pub struct Host {
    pub name: Name,
    pub key: KeyRequest,
    pub issued: Option<IssuedAnswer>,
}

/// Opens the agent port of a house, with whatever papers it has.
pub fn open(house: &House) -> SocketAddr {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.address();
    let (service, papers) = (house.service.clone(), house.papers.link());
    house.tasks.spawn("link", listener.serve(service, papers, CAPS, house.shutdown.clone(), house.tasks.clone()));
    address
}

pub async fn token(house: &House, wish: JoinWish) -> JoinToken {
    let (_, line) = house.service.join_token_new(&house.admin, wish).await.unwrap();
    line.parse().unwrap()
}

pub async fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Peer> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(manager_name(), stream).await.map(Peer::new)
}

/// Says a hello that asks for a certificate and reads the answer.
pub async fn ask(peer: &mut Peer, hello: Body) -> Result<IssuedAnswer, Refused> {
    if peer.try_reply(0, hello).await.is_none() {
        return Err(Refused::Closed);
    }
    let Some(frame) = peer.next().await else { return Err(Refused::Closed) };
    match read_issued(&frame) {
        Ok(answer) => {
            assert_eq!(peer.bye().await.0, Code::Normal, "no session follows");
            Ok(answer)
        }
        Err(WelcomeError::Refused { code, reason, .. }) => Err(Refused::Told(code, reason)),
        Err(other) => panic!("{other}"),
    }
}

impl Host {
    pub fn new(name: &str) -> Self {
        Self { name: name.parse().unwrap(), key: tls::new_key().unwrap(), issued: None }
    }

    pub fn join_hello(&self, token: &JoinToken) -> Body {
        join_hello(&JoinParams {
            name: &self.name,
            token_id: &token.id,
            secret: &token.secret,
            csr: &self.key.csr,
            agent_version: "0.3.0",
        })
    }

    /// Joins over TLS, as `paprika-agent join` does.
    pub async fn join(&mut self, address: SocketAddr, token: &JoinToken) -> Result<(), Refused> {
        let config = tls::link_client_joining(token.pin, tls::system_clock()).unwrap();
        let mut peer = dial(address, config).await.map_err(|_| Refused::Closed)?;
        let answer = ask(&mut peer, self.join_hello(token)).await?;
        self.take(answer);
        Ok(())
    }

    /// Asks for a place over a byte stream that comes from `from`.
    pub async fn join_from(&mut self, house: &House, from: &str, token: &JoinToken) -> Result<(), Refused> {
        let mut peer = house.dial_as(LinkPeer::Stranger, from.parse().unwrap());
        let answer = ask(&mut peer, self.join_hello(token)).await?;
        self.take(answer);
        Ok(())
    }

    /// Checks what was issued as an agent does, and keeps it.
    pub fn take(&mut self, answer: IssuedAnswer) {
        let expected = Expected {
            spki: self.key.spki,
            name: &self.name,
            cluster: Some(&answer.cluster),
            generation: None,
            now: std::time::Duration::from_millis(now_ms()),
        };
        check_issued(&answer.issued.chain_pem, &answer.issued.bundle_pem, &expected).unwrap();
        self.issued = Some(answer);
    }

    pub fn identity(&self) -> Identity {
        self.shown().identity
    }

    /// What a manager knows of it after a TLS handshake.
    pub fn shown(&self) -> AgentPeer {
        let chain = tls::chain_from_pem(self.answer().issued.chain_pem.as_bytes()).unwrap();
        let leaf = read_leaf(chain.first().unwrap()).unwrap();
        AgentPeer { identity: leaf.identity, expired: false, spki: leaf.spki, not_after: leaf.not_after }
    }

    /// Its end of TLS once it is an agent.
    pub fn config(&self) -> Arc<ClientConfig> {
        let issued = &self.answer().issued;
        config_of(&issued.chain_pem, self.key.key_pem.expose(), &issued.bundle_pem)
    }

    /// The hash of the authorities that it trusts.
    pub fn trusts(&self) -> [u8; 32] {
        tls::bundle_hash_of_pem(self.answer().issued.bundle_pem.as_bytes()).unwrap()
    }

    /// Connects over TLS; `None` when it is not served.
    pub async fn connect(&self, house: &House, address: SocketAddr, journal: u8) -> Option<Peer> {
        let mut peer = dial(address, self.config()).await.ok()?;
        let params = self.hello(house, journal);
        peer.try_reply(0, common::handshake::hello(&params)).await?;
        let frame = peer.next().await?;
        let welcome = common::handshake::read_welcome(&frame).ok()?;
        assert_eq!(welcome.cluster, self.answer().cluster);
        peer.settle(Vec::new()).await;
        Some(peer)
    }

    pub fn hello(&self, house: &House, journal: u8) -> HelloParams {
        let mut params = house.hello(&self.identity(), journal);
        params.capabilities.push(common::version::capability::RENEW.to_owned());
        params.bundle_hash = Some(self.trusts());
        params
    }

    fn answer(&self) -> &IssuedAnswer {
        self.issued.as_ref().expect("it has a certificate")
    }
}

pub fn config_of(chain: &str, key: &str, bundle: &str) -> Arc<ClientConfig> {
    let chain = tls::chain_from_pem(chain.as_bytes()).unwrap();
    let key = tls::key_from_pem(key.as_bytes()).unwrap();
    tls::link_client(chain, key, tls::roots_from_pem(bundle.as_bytes()).unwrap()).unwrap()
}

/// The audit rows of one action: outcome, actor, object and details.
pub async fn audited(house: &House, action: &str) -> Vec<(String, String, String, String)> {
    let rows = house.store.audit_rows(0, 100_000).await.unwrap();
    let rows = rows.into_iter().filter(|row| row.action == action);
    rows.map(|row| (row.outcome, row.actor.0, row.object, row.details)).collect()
}
