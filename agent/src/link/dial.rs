//! One attempt to reach one address: resolve, connect, TLS, hello, welcome. Every step has a deadline and all of them
//! together have [`limits::HANDSHAKE`] after the connection stands (protocol R-SESSION-2).
//!
//! Until the server has proven that it is a manager, no byte above TLS leaves this host; what did not convince us is named.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::{self, HelloParams, IssuedAnswer, Welcome, WelcomeError};
use common::id::Name;
use common::limits;
use common::link::{Lane, LinkError, Reader, Writer};
use common::tls::{self, ClientConfig, HandshakeFault, Identity, PeerError, Role, TlsConnector};
use common::wire::Frame;
use common::wire::frame::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::session::Session;
use crate::config::Address;
use crate::identity::Credentials;

/// Kernel send buffer: small, so that a control frame never waits behind seconds of output that already left us.
const SEND_BUFFER: u32 = 256 * 1024;
/// When the kernel asks a silent peer whether it is there; our own heartbeat is faster, this catches a stuck process.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Any byte stream: TLS in a daemon, a pipe in tests.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

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
    #[error("the server has not proven that it is a manager")]
    Server(#[source] HandshakeFault),
    #[error("the manager does not take the certificate of this host")]
    Own(#[source] HandshakeFault),
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

/// What came of a hello.
pub(crate) enum Greeted {
    /// A session.
    Session(Box<Session>),
    /// A certificate; the manager closes, and wants to be dialled again with it.
    Issued(Box<IssuedAnswer>),
}

/// Reaches one address with an identity and says hello; with a request, because the certificate has ended, it asks for
/// the next one instead of a session.
///
/// # Errors
/// The first step that failed.
///
/// # Cancel safety
/// Dropping the future closes the connection; nothing was promised yet.
pub(crate) async fn dial(
    address: &Address,
    who: &Credentials,
    hello: &HelloParams,
    csr: Option<&[u8]>,
) -> Result<Greeted, DialError> {
    let tcp = reach(address).await?;
    let open = async {
        let (stream, manager) = prove(tcp, &who.config).await?;
        if manager.cluster != who.identity.cluster {
            return Err(DialError::Cluster(manager.cluster));
        }
        match csr {
            None => greet(stream, hello).await.map(|session| Greeted::Session(Box::new(session))),
            Some(csr) => {
                let answer = ask(stream, handshake::recover_hello(hello, csr)).await?;
                if answer.cluster != who.identity.cluster {
                    return Err(DialError::Cluster(answer.cluster));
                }
                Ok(Greeted::Issued(Box::new(answer)))
            }
        }
    };
    timeout(limits::HANDSHAKE, open).await.map_err(|_| DialError::Late("saying hello"))?
}

/// Connects to an address: one of those that its name has.
///
/// # Errors
/// Why it cannot be reached.
pub(crate) async fn reach(address: &Address) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + limits::DIAL;
    let found = timeout_at(deadline, lookup_host((address.host.as_str(), address.port)))
        .await
        .map_err(|_| DialError::Late("resolving the name"))?
        .map_err(DialError::Resolve)?;
    let mut last = DialError::NoAddress;
    for at in found {
        match timeout_at(deadline, connect(at)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = DialError::Connect(error),
            Err(_) => return Err(DialError::Late("connecting")),
        }
    }
    Err(last)
}

/// Lets the peer prove by TLS that it is a manager; the caller has the deadline.
///
/// # Errors
/// Which check failed. No byte above TLS has left then.
pub(crate) async fn prove(
    tcp: TcpStream,
    config: &Arc<ClientConfig>,
) -> Result<(Box<dyn Duplex>, Identity), DialError> {
    let tls =
        TlsConnector::from(Arc::clone(config)).connect(tls::manager_name(), tcp).await.map_err(DialError::of_tls)?;
    let (_, connection) = tls.get_ref();
    let manager = tls::check_link_peer(connection, Role::Manager).map_err(DialError::Peer)?;
    Ok((Box::new(tls), manager))
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

/// Says hello over a byte stream whose peer is proven, and waits for the welcome. The caller has the deadline.
pub(crate) async fn greet(stream: Box<dyn Duplex>, params: &HelloParams) -> Result<Session, DialError> {
    let (mut reader, writer, frame) = say(stream, handshake::hello(params)).await?;
    let welcome: Welcome = handshake::read_welcome(&frame).map_err(DialError::Welcome)?;
    if welcome.cluster != params.cluster {
        return Err(DialError::Cluster(welcome.cluster));
    }
    reader.set_limit(limits::MAX_FRAME);
    Ok(Session::new(reader, writer, welcome))
}

/// Says a hello that asks for a certificate over a byte stream whose peer is proven, and waits for it. The caller has
/// the deadline.
pub(crate) async fn ask(stream: Box<dyn Duplex>, hello: Body) -> Result<IssuedAnswer, DialError> {
    let (_reader, _writer, frame) = say(stream, hello).await?;
    handshake::read_issued(&frame).map_err(DialError::Welcome)
}

type Spoken = (Reader<ReadHalf<Box<dyn Duplex>>>, Writer<WriteHalf<Box<dyn Duplex>>>, Frame);

/// The first frame of each side: ours is the first byte that is said above TLS (protocol R-TLS-6).
async fn say(stream: Box<dyn Duplex>, hello: Body) -> Result<Spoken, DialError> {
    let (read, write) = tokio::io::split(stream);
    let mut reader = Reader::new(read, limits::MAX_FRAME_BEFORE_HELLO);
    let mut writer = Writer::new(write);
    writer.push(Lane::Control, hello);
    writer.flush().await.map_err(DialError::of_link)?;
    let frame = reader.next().await.map_err(DialError::of_link)?.ok_or(DialError::Closed)?;
    Ok((reader, writer, frame))
}

impl DialError {
    fn of_tls(error: io::Error) -> Self {
        match tls::fault(&error) {
            Some(fault) if is_own(&fault) => Self::Own(fault),
            Some(fault) => Self::Server(fault),
            None => Self::Tls(error),
        }
    }

    /// With TLS 1.3 a manager's verdict on our certificate comes after the handshake, instead of its hello.
    fn of_link(error: LinkError) -> Self {
        match &error {
            LinkError::Io(io) => match tls::fault(io) {
                Some(fault) if is_own(&fault) => Self::Own(fault),
                _ => Self::Link(error),
            },
            _ => Self::Link(error),
        }
    }
}

fn is_own(fault: &HandshakeFault) -> bool {
    use HandshakeFault as F;
    matches!(fault, F::OwnExpired | F::OwnUnknown | F::OwnRefused)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use common::clock::unix_ms;
    use common::error::Chain;
    use common::id::Uid;
    use common::tls::TlsAcceptor;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::super::strangers;
    use super::*;
    use crate::clock::ManagerClock;
    use crate::identity::authority::{Authority, HOUR, Server};
    use crate::identity::{Keeper, LinkTime, Validity};

    fn hello() -> HelloParams {
        HelloParams {
            name: "web1".parse().unwrap(),
            cluster: "c1".parse().unwrap(),
            boot_id: "b".into(),
            journal: Uid([1; 16]),
            incarnation: 0,
            store_position: 0,
            cores: 1,
            memory_bytes: 1,
            labels: Default::default(),
            agent_version: "0".into(),
            isolation: "cgroup".into(),
            capabilities: Vec::new(),
            bundle_hash: None,
        }
    }

    fn keeper(authority: &Authority, folder: &std::path::Path, clock: &ManagerClock) -> Keeper {
        let validity = Validity { from_ms: unix_ms() - HOUR, until_ms: unix_ms() + HOUR };
        let material = authority.identity(&folder.join("etc"), "paprika://c1/agent/web1/1", validity);
        Keeper::open(material, folder, Arc::new(LinkTime::new(clock))).unwrap()
    }

    async fn failure(address: &Address, keeper: &Keeper) -> String {
        match dial(address, keeper.current(), &hello(), None).await {
            Ok(_) => panic!("a session with a stranger"),
            Err(error) => Chain(&error).to_string(),
        }
    }

    /// Protocol R-TLS-6.
    #[tokio::test]
    async fn an_agent_says_nothing_to_a_server_that_is_not_its_manager_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("ours");
        let keeper = keeper(&authority, folder.path(), &ManagerClock::new("b", None));
        for stranger in strangers::all(&authority) {
            let (what, expected) = (stranger.what, stranger.for_agent);
            let (address, mut heard) = stranger.listen().await;
            let said = failure(&address, &keeper).await;
            assert!(said.contains(expected), "{what}: {said}");
            assert_eq!(heard.join_next().await.unwrap().unwrap(), 0, "{what}: bytes above TLS");
        }
    }

    /// Of our own authority, but a manager of somebody else.
    #[tokio::test]
    async fn a_manager_of_another_cluster_hears_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("ours");
        let keeper = keeper(&authority, folder.path(), &ManagerClock::new("b", None));
        let config = authority.server(&Server { uri: "paprika://c2/manager/m1/1", ..Server::default() }, true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let server = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut tls = TlsAcceptor::from(config).accept(socket).await.unwrap();
            let mut heard = Vec::new();
            let _ = tls.read_to_end(&mut heard).await;
            heard.len()
        };
        let (said, heard) = tokio::join!(failure(&address, &keeper), server);
        assert!(said.contains("a manager of cluster `c2`"), "{said}");
        assert_eq!(heard, 0);
    }

    /// A host whose clock is years away uses what it knows of manager time, in this boot and as a lower bound after it.
    #[tokio::test]
    async fn certificates_are_judged_by_manager_time() {
        let authority = Authority::new("ours");
        let year = 365 * 24 * HOUR;
        for (heard, reaches_tls) in [(unix_ms(), true), (unix_ms() - 10 * year, false), (unix_ms() + 10 * year, false)]
        {
            let folder = tempfile::tempdir().unwrap();
            let mut clock = ManagerClock::new("b", None);
            clock.hear(heard, crate::clock::boot_ms());
            let keeper = keeper(&authority, folder.path(), &clock);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
            let acceptor = TlsAcceptor::from(authority.manager());
            let server = async {
                let (socket, _) = listener.accept().await.unwrap();
                // A manager that hangs up behind TLS.
                drop(acceptor.accept(socket).await);
            };
            let (said, ()) = tokio::join!(failure(&address, &keeper), server);
            let is_about_time = said.contains("this host's clock may be wrong by 9years");
            assert_eq!(is_about_time, !reaches_tls, "{said}");
        }
    }
}
