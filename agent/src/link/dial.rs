//! One attempt to reach one address: resolve, connect, TLS, hello, welcome. Every step has a deadline and all of them
//! together have [`limits::HANDSHAKE`] after the connection stands (protocol R-SESSION-2).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::{self, HelloParams, Welcome, WelcomeError};
use common::id::Name;
use common::limits;
use common::link::{Lane, LinkError, Reader, Writer};
use common::tls::{self, ClientConfig, Identity, MaterialError, PeerError, Role, TlsConnector, TlsError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::session::Session;
use crate::config::{Address, AgentConfig};

/// Kernel send buffer: small, so that a control frame never waits behind seconds of output that already left us.
const SEND_BUFFER: u32 = 256 * 1024;
/// When the kernel asks a silent peer whether it is there; our own heartbeat is faster, this catches a stuck process.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Any byte stream: TLS in a daemon, a pipe in tests.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Who this agent is, as its certificate says, and how it proves it.
pub(crate) struct Credentials {
    /// Identity from the certificate.
    pub(crate) identity: Identity,
    config: Arc<ClientConfig>,
}

/// Why the agent has no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file is missing or is not what it should be.
    #[error("the identity of this agent cannot be loaded")]
    Material(#[source] MaterialError),
    /// The certificate file is empty.
    #[error("the certificate file holds no certificate")]
    Empty,
    /// The certificate carries no identity of ours.
    #[error("the certificate is not one of this system")]
    Identity(#[source] PeerError),
    /// The certificate is for something else than an agent.
    #[error("the certificate belongs to a {0}, not to an agent")]
    Role(&'static str),
    /// The configuration names another host.
    #[error("the configuration is for `{wanted}` but the certificate for `{found}`")]
    Name {
        /// What the configuration says.
        wanted: Name,
        /// What the certificate says.
        found: Name,
    },
    /// Key, certificate and authority do not fit together.
    #[error("TLS cannot use the identity of this agent")]
    Tls(#[source] TlsError),
}

impl Credentials {
    /// Loads what the configuration names. Blocking: file reads.
    pub(crate) fn load(config: &AgentConfig) -> Result<Self, CredentialsError> {
        use CredentialsError as E;
        let chain = tls::load_chain(&config.cert).map_err(E::Material)?;
        let key = tls::load_key(&config.key).map_err(E::Material)?;
        let roots = tls::load_roots(&config.ca).map_err(E::Material)?;
        let identity = tls::peer_identity(chain.first().ok_or(E::Empty)?).map_err(E::Identity)?;
        if identity.role != Role::Agent {
            return Err(E::Role(identity.role.as_str()));
        }
        if let Some(wanted) = config.name.as_ref().filter(|wanted| **wanted != identity.name) {
            return Err(E::Name { wanted: wanted.clone(), found: identity.name });
        }
        let config = tls::link_client(chain, key, roots).map_err(E::Tls)?;
        Ok(Self { identity, config })
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the name cannot be resolved")]
    Resolve(#[source] io::Error),
    #[error("the name has no address")]
    NoAddress,
    #[error("the connection cannot be made")]
    Connect(#[source] io::Error),
    #[error("TLS cannot be agreed on")]
    Tls(#[source] io::Error),
    #[error("the peer is not a manager of this cluster")]
    Peer(#[source] PeerError),
    #[error("the peer is a manager of cluster `{0}`")]
    Cluster(Name),
    #[error("the connection ended during the hello")]
    Link(#[source] LinkError),
    #[error("the peer closed before it said hello")]
    Closed,
    #[error("no session")]
    Welcome(#[source] WelcomeError),
    #[error("no answer in time while {0}")]
    Late(&'static str),
}

/// Reaches one address and says hello.
///
/// # Errors
/// The first step that failed.
///
/// # Cancel safety
/// Dropping the future closes the connection; nothing was promised yet.
pub(crate) async fn dial(address: &Address, who: &Credentials, hello: &HelloParams) -> Result<Session, DialError> {
    let deadline = Instant::now() + limits::DIAL;
    let found = timeout_at(deadline, lookup_host((address.host.as_str(), address.port)))
        .await
        .map_err(|_| DialError::Late("resolving the name"))?
        .map_err(DialError::Resolve)?;
    let mut last = DialError::NoAddress;
    for at in found {
        match timeout_at(deadline, connect(at)).await {
            Ok(Ok(tcp)) => {
                return timeout(limits::HANDSHAKE, open(tcp, who, hello))
                    .await
                    .map_err(|_| DialError::Late("saying hello"))?;
            }
            Ok(Err(error)) => last = DialError::Connect(error),
            Err(_) => return Err(DialError::Late("connecting")),
        }
    }
    Err(last)
}

async fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Best effort: the kernel's defaults only make us slower to notice, never wrong.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    let _ = socket.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(&socket, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(&socket, KEEPALIVE);
    let stall = u32::try_from(limits::WRITE_STALL.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, stall);
    socket.connect(at).await
}

async fn open(tcp: TcpStream, who: &Credentials, params: &HelloParams) -> Result<Session, DialError> {
    let tls =
        TlsConnector::from(Arc::clone(&who.config)).connect(tls::manager_name(), tcp).await.map_err(DialError::Tls)?;
    let (_, connection) = tls.get_ref();
    let peer = tls::check_link_peer(connection, Role::Manager).map_err(DialError::Peer)?;
    if peer.cluster != who.identity.cluster {
        return Err(DialError::Cluster(peer.cluster));
    }
    // Only now is the first byte said (protocol R-TLS-6).
    greet(Box::new(tls), params).await
}

/// Says hello over a byte stream whose peer is proven, and waits for the welcome. The caller has the deadline.
pub(crate) async fn greet(stream: Box<dyn Duplex>, params: &HelloParams) -> Result<Session, DialError> {
    let (read, write) = tokio::io::split(stream);
    let mut reader = Reader::new(read, limits::MAX_FRAME_BEFORE_HELLO);
    let mut writer = Writer::new(write);
    writer.push(Lane::Control, handshake::hello(params));
    writer.flush().await.map_err(DialError::Link)?;
    let frame = reader.next().await.map_err(DialError::Link)?.ok_or(DialError::Closed)?;
    let welcome: Welcome = handshake::read_welcome(&frame).map_err(DialError::Welcome)?;
    if welcome.cluster != params.cluster {
        return Err(DialError::Cluster(welcome.cluster));
    }
    reader.set_limit(limits::MAX_FRAME);
    Ok(Session::new(reader, writer, welcome))
}
