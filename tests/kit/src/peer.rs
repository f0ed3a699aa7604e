//! A scripted agent: real TCP and TLS, frames written and read one by one by a test.
//!
//! It keeps no promise by itself. It answers pings while it waits for something else, because a test is seldom about
//! liveness; `next` shows every frame as it comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::BytesMut;
use common::clock::unix_ms;
use common::frame;
use common::handshake::{self, HelloParams};
use common::id::Uid;
use common::limits::MAX_FRAME;
use common::link::Reader;
use common::tls::{
    self, CertificateDer, ClientConfig, Identity, PrivateKeyDer, RootCertStore, TlsConnector, client::TlsStream,
};
use common::wire::frame::Body;
use common::wire::{Bye, Command, Frame, Inventory, InventoryItem, Pong, Reconcile, ServerHello};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::wait::PATIENCE;

/// What an agent shows and whom it trusts.
#[derive(Debug)]
pub struct Credentials {
    /// Its certificate, and what that is signed by.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// The authority that it trusts.
    pub roots: RootCertStore,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), roots: self.roots.clone() }
    }
}

impl Credentials {
    /// Who the certificate says its bearer is.
    ///
    /// # Errors
    /// When it does not say it.
    pub fn identity(&self) -> anyhow::Result<Identity> {
        let leaf = self.chain.first().context("an empty chain")?;
        Ok(tls::peer_identity(leaf)?)
    }

    /// The TLS configuration of a proper agent.
    ///
    /// # Errors
    /// When certificate and key do not fit together.
    pub fn config(&self) -> anyhow::Result<Arc<ClientConfig>> {
        Ok(tls::link_client(self.chain.clone(), self.key.clone_key(), self.roots.clone())?)
    }
}

/// Where and as who a scripted agent says hello.
#[derive(Debug, Clone)]
pub struct Script {
    /// The manager's link.
    pub link: SocketAddr,
    /// Its certificate.
    pub credentials: Credentials,
    /// What it says in its hello.
    pub hello: HelloParams,
}

impl Script {
    /// An agent as its certificate says, with a journal and a boot of its own.
    ///
    /// # Errors
    /// When the certificate names nobody.
    pub fn new(link: SocketAddr, credentials: Credentials) -> anyhow::Result<Self> {
        let identity = credentials.identity()?;
        let hello = HelloParams {
            name: identity.name,
            cluster: identity.cluster,
            boot_id: Uid::random().to_string(),
            journal: Uid::random(),
            incarnation: 0,
            store_position: 0,
            cores: 1,
            memory_bytes: 1 << 30,
            labels: Default::default(),
            agent_version: "scripted".to_owned(),
            isolation: "best_effort".to_owned(),
            capabilities: Vec::new(),
            bundle_hash: None,
        };
        Ok(Self { link, credentials, hello })
    }

    /// Connects, says hello and lists nothing: from here on commands come.
    ///
    /// # Errors
    /// When the manager does not serve it.
    pub async fn open(&self) -> anyhow::Result<(Peer, ServerHello)> {
        let (mut peer, welcome) = self.greet().await?;
        peer.list(Vec::new()).await?;
        Ok((peer, welcome))
    }

    /// Connects and says hello.
    ///
    /// # Errors
    /// When the manager does not serve it.
    pub async fn greet(&self) -> anyhow::Result<(Peer, ServerHello)> {
        let mut peer = Peer::connect(self.link, &self.credentials).await?;
        peer.send(handshake::hello(&self.hello)).await?;
        let welcome = peer.welcome().await?;
        Ok((peer, welcome))
    }
}

/// One connection.
#[derive(Debug)]
pub struct Peer<S = TlsStream<TcpStream>> {
    reader: Reader<ReadHalf<S>>,
    writer: WriteHalf<S>,
    seq: u64,
}

impl Peer {
    /// Opens TCP and TLS as a proper agent does; nothing is said yet.
    ///
    /// # Errors
    /// When the manager does not take the connection.
    pub async fn connect(link: SocketAddr, credentials: &Credentials) -> anyhow::Result<Self> {
        Self::connect_with(link, credentials.config()?).await
    }

    /// The same with any TLS configuration.
    ///
    /// # Errors
    /// When the manager does not take the connection.
    pub async fn connect_with(link: SocketAddr, config: Arc<ClientConfig>) -> anyhow::Result<Self> {
        let opened = timeout(PATIENCE, async {
            let socket = TcpStream::connect(link).await?;
            socket.set_nodelay(true)?;
            TlsConnector::from(config).connect(tls::manager_name(), socket).await
        });
        let stream = opened.await.context("the handshake took too long")??;
        Ok(Self::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Speaks over a stream that is open.
    pub(crate) fn over(stream: S) -> Self {
        let (read, writer) = tokio::io::split(stream);
        Self { reader: Reader::new(read, MAX_FRAME), writer, seq: 0 }
    }

    /// Sends a frame; answers its number.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, body: Body) -> anyhow::Result<u64> {
        self.answer(0, body).await
    }

    /// Sends the answer to the frame numbered `reply_to`.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn answer(&mut self, reply_to: u64, body: Body) -> anyhow::Result<u64> {
        self.seq += 1;
        let frame = Frame { seq: self.seq, reply_to, may_ignore: false, body: Some(body) };
        let mut bytes = BytesMut::new();
        frame::encode(&frame, &mut bytes)?;
        self.send_bytes(&bytes).await?;
        Ok(self.seq)
    }

    /// Sends bytes that need not be a frame.
    ///
    /// # Errors
    /// When the connection is gone, or the manager takes nothing.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = timeout(PATIENCE, async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        });
        Ok(written.await.context("the manager takes nothing")??)
    }

    /// Waits for the next frame; `None` when the manager closed.
    ///
    /// # Errors
    /// When the connection broke or nothing came in time.
    pub async fn next(&mut self, within: Duration) -> anyhow::Result<Option<Frame>> {
        let next = timeout(within, self.reader.next()).await.context("no frame came in time")?;
        Ok(next?)
    }

    /// Takes the next frame if one comes before `until`.
    ///
    /// # Errors
    /// When the connection ended or broke.
    pub async fn before(&mut self, until: Instant) -> anyhow::Result<Option<Frame>> {
        match timeout_at(until, self.reader.next()).await {
            Ok(Ok(None)) => bail!("the other side closed"),
            Ok(frame) => Ok(frame?),
            Err(_) => Ok(None),
        }
    }

    /// Waits for a frame that `pick` takes, answers pings meanwhile and passes over the rest.
    ///
    /// # Errors
    /// When the connection ended or nothing fitting came within the usual bound; `what` says what was wanted.
    pub async fn expect<T>(&mut self, what: &str, mut pick: impl FnMut(&Frame) -> Option<T>) -> anyhow::Result<T> {
        let until = Instant::now() + PATIENCE;
        let mut passed = Vec::new();
        loop {
            let next = timeout_at(until, self.reader.next()).await;
            let frame = match next.with_context(|| format!("no {what} came; passed {passed:?}"))? {
                Ok(Some(frame)) => frame,
                Ok(None) => bail!("the manager closed before {what}; passed {passed:?}"),
                Err(error) => return Err(error).with_context(|| format!("waiting for {what}; passed {passed:?}")),
            };
            if let Some(found) = pick(&frame) {
                return Ok(found);
            }
            match &frame.body {
                Some(Body::Ping(_)) => {
                    self.answer(frame.seq, Body::Pong(Pong { clock_ms: unix_ms() })).await?;
                }
                Some(Body::Bye(bye)) => bail!("{:?} ({}) came before {what}", bye.code(), bye.reason),
                Some(body) => passed.push(common::session::name(body)),
                None => passed.push("unknown"),
            }
        }
    }

    /// Waits for the manager's hello.
    ///
    /// # Errors
    /// When something else comes.
    pub async fn welcome(&mut self) -> anyhow::Result<ServerHello> {
        self.expect("ServerHello", |frame| match &frame.body {
            Some(Body::ServerHello(hello)) => Some(hello.clone()),
            _ => None,
        })
        .await
    }

    /// Lists what the agent holds, in one page, and waits for the answer to it.
    ///
    /// # Errors
    /// When none comes.
    pub async fn list(&mut self, items: Vec<InventoryItem>) -> anyhow::Result<Reconcile> {
        self.send(Body::Inventory(Inventory { items, last: true })).await?;
        self.expect("Reconcile", |frame| match &frame.body {
            Some(Body::Reconcile(answer)) => Some(answer.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for a command; answers the number of its frame too.
    ///
    /// # Errors
    /// When none comes.
    pub async fn command(&mut self) -> anyhow::Result<(u64, Command)> {
        self.expect("Command", |frame| match &frame.body {
            Some(Body::Command(command)) => Some((frame.seq, command.clone())),
            _ => None,
        })
        .await
    }

    /// Waits for a goodbye.
    ///
    /// # Errors
    /// When none comes.
    pub async fn bye(&mut self) -> anyhow::Result<Bye> {
        self.expect("Bye", |frame| match &frame.body {
            Some(Body::Bye(bye)) => Some(bye.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until the manager has closed; answers the goodbye it said before, if it did. Frames are passed over.
    ///
    /// # Errors
    /// When it stays open.
    pub async fn closed(&mut self, within: Duration) -> anyhow::Result<Option<Bye>> {
        let until = Instant::now() + within;
        let mut bye = None;
        loop {
            let next = timeout_at(until, self.reader.next()).await;
            match next.context("the manager left the connection open")? {
                Ok(Some(Frame { body: Some(Body::Bye(said)), .. })) => bye = Some(said),
                Ok(Some(_)) => {}
                // A close in the middle of what we sent may arrive as a reset: it is closed all the same.
                Ok(None) | Err(_) => return Ok(bye),
            }
        }
    }

    /// Makes sure that every frame sent so far was seen: a ping comes back.
    ///
    /// # Errors
    /// When it does not.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        let ping = common::wire::Ping { clock_ms: unix_ms(), store_position: 0 };
        let sent = self.send(Body::Ping(ping)).await?;
        self.expect("Pong", |frame| (frame.reply_to == sent && matches!(frame.body, Some(Body::Pong(_)))).then_some(()))
            .await
    }
}
