//! A scripted manager: real TCP and TLS for a real agent, frames written and read one by one by a test.
//!
//! It keeps no promise by itself and stores nothing. Its certificate comes from the authority that the agent trusts.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use common::clock::unix_ms;
use common::handshake::{WelcomeParams, welcome};
use common::id::{Epoch, Incarnation, Name, StorePosition};
use common::tls::{ServerConfig, TlsAcceptor, link_server, server::TlsStream};
use common::version::Version;
use common::wire::frame::Body;
use common::wire::{ClientHello, Inventory, Reconcile};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::peer::Peer;
use crate::pki::{Leaf, Pki};
use crate::wait::PATIENCE;

/// Waits for agents.
pub struct ScriptedManager {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    cluster: Name,
    /// Said in every welcome.
    pub heartbeat: Duration,
}

/// A session with an agent, opened and reconciled.
#[derive(Debug)]
pub struct Session {
    /// The frames.
    pub link: Peer<TlsStream<TcpStream>>,
    /// What the agent said of itself.
    pub hello: ClientHello,
}

impl ScriptedManager {
    /// Listens on a free port, with a certificate of the authority `pki`.
    ///
    /// # Errors
    /// When no port is free or the certificate cannot be made.
    pub async fn start(pki: &Pki, cluster: &Name) -> anyhow::Result<Self> {
        let own = pki.issue(&Leaf::manager(cluster, &"scripted".parse()?), pki)?;
        let config = link_server(own.chain.clone(), own.key.clone_key(), own.roots)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Ok(Self { listener, config, cluster: cluster.clone(), heartbeat: Duration::from_secs(10) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Lets an agent dial this one instead of its manager, from its next start on.
    ///
    /// # Errors
    /// When its configuration cannot be rewritten.
    pub fn lure(&self, agent_yml: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(agent_yml)?;
        let line = format!("managers: ['{}']", self.address()?);
        let lines = text.lines().map(|old| if old.starts_with("managers:") { line.as_str() } else { old });
        Ok(fs::write(agent_yml, lines.collect::<Vec<_>>().join("\n"))?)
    }

    /// Waits for an agent that holds nothing; from here on commands may be sent.
    ///
    /// # Errors
    /// When none comes in time, or it holds something.
    pub async fn serve(&self) -> anyhow::Result<Session> {
        let opened = timeout(PATIENCE, async {
            let (socket, _) = self.listener.accept().await?;
            socket.set_nodelay(true)?;
            TlsAcceptor::from(Arc::clone(&self.config)).accept(socket).await
        });
        let mut link = Peer::over(opened.await.context("no agent came")??);
        let frame = link.next(PATIENCE).await?.context("closed before its hello")?;
        let Some(Body::ClientHello(hello)) = frame.body else { bail!("not a hello: {frame:?}") };
        let params = WelcomeParams {
            version: Version::V1,
            epoch: Epoch(1),
            incarnation: Incarnation(1),
            store_position: StorePosition(1),
            heartbeat: self.heartbeat,
            manager_addresses: Vec::new(),
            cluster: self.cluster.clone(),
            clock_ms: unix_ms(),
            bundle_hash: None,
        };
        link.answer(frame.seq, welcome(&params)).await?;
        let frame = link.next(PATIENCE).await?.context("closed before its inventory")?;
        match frame.body {
            Some(Body::Inventory(Inventory { items, last: true })) if items.is_empty() => {}
            other => bail!("not an empty inventory: {other:?}"),
        }
        link.answer(frame.seq, Body::Reconcile(Reconcile { items: Vec::new(), last: true })).await?;
        Ok(Session { link, hello })
    }
}
