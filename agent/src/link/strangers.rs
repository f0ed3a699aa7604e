//! Servers that are not the manager an agent looks for, each wrong in one way, and what an agent tells them: nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;

use common::tls::{Role, ServerConfig, TlsAcceptor};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::config::Address;
use crate::identity::Validity;
use crate::identity::authority::{Authority, HOUR, Server};

/// One wrong server.
pub(crate) struct Stranger {
    /// What is wrong with it.
    pub(crate) what: &'static str,
    /// What an agent with certificate and bundle says is wrong.
    pub(crate) for_agent: &'static str,
    /// What a host that joins says is wrong.
    pub(crate) for_guest: &'static str,
    speech: Speech,
}

/// How it speaks.
enum Speech {
    Tls(Arc<ServerConfig>),
    /// Sends this, whatever it hears.
    Raw(&'static [u8]),
}

/// A server hello of TLS 1.2: version, random bytes, no session, one cipher suite, no compression.
const TLS12: &[u8] = b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03\
0123456789abcdef0123456789abcdef\x00\xc0\x2b\x00";
const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";

impl Stranger {
    fn new(what: &'static str, said: [&'static str; 2], speech: Speech) -> Self {
        let [for_agent, for_guest] = said;
        Self { what, for_agent, for_guest, speech }
    }

    /// Listens; the address, and a task that tells how many bytes above TLS it heard from its first guest.
    pub(crate) async fn listen(self) -> (Address, JoinSet<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at: SocketAddr = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            match self.speech {
                Speech::Tls(config) => hear_tls(socket, config).await,
                Speech::Raw(answer) => hear_raw(socket, answer).await,
            }
        });
        (Address { host: at.ip().to_string(), port: at.port() }, task)
    }
}

async fn hear_tls(socket: TcpStream, config: Arc<ServerConfig>) -> usize {
    let Ok(mut tls) = TlsAcceptor::from(config).accept(socket).await else { return 0 };
    let mut heard = Vec::new();
    // A guest that leaves without a word is what we hope for.
    let _ = tls.read_to_end(&mut heard).await;
    heard.len()
}

/// Counts what is not a record of a TLS handshake.
async fn hear_raw(mut socket: TcpStream, answer: &[u8]) -> usize {
    let mut heard = vec![0; 64 * 1024];
    let first = socket.read(&mut heard).await.unwrap();
    let is_hello = heard.first() == Some(&0x16);
    socket.write_all(answer).await.unwrap();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    // Behind the hello only an alert may follow.
    let more = if rest.first() == Some(&0x15) { 0 } else { rest.len() };
    if is_hello { more } else { first + more }
}

/// All of them; `own` is the authority that is trusted, or pinned.
pub(crate) fn all(own: &Authority) -> Vec<Stranger> {
    const UNKNOWN: &str = "not signed by an authority that is trusted";
    const PIN: &str = "does not show the authority with the expected pin";
    let now = common::clock::unix_ms();
    let usual = Server::default;
    let (other, retired) = (Authority::new("somebody else"), Authority::new("ours of last year"));
    let tls = |what, said, authority: &Authority, leaf: Server<'_>| {
        Stranger::new(what, said, Speech::Tls(authority.server(&leaf, true)))
    };
    let past = Validity { from_ms: now - 30 * HOUR, until_ms: now - 26 * HOUR };
    let future = Validity { from_ms: now + 26 * HOUR, until_ms: now + 30 * HOUR };
    let agent =
        Server { uri: "paprika://c1/agent/web2/1", dns: None, usage: ExtendedKeyUsagePurpose::ClientAuth, ..usual() };
    let operator = Server { uri: "paprika://c1/operator/eve/1", ..usual() };
    let mut mute = (*own.manager()).clone();
    mute.alpn_protocols.clear();
    let mut web = (*own.manager()).clone();
    web.alpn_protocols = vec![b"http/1.1".to_vec()];
    let wrong_role = "one of an operator, not of a manager";
    assert_eq!(Role::Operator.as_str(), "operator");
    vec![
        tls("self-signed", [UNKNOWN, PIN], &other, Server { by_itself: true, ..usual() }),
        tls("of an unknown authority", [UNKNOWN, PIN], &other, usual()),
        tls("an agent's certificate", ["may not be used by a server"; 2], own, agent),
        tls("an operator's certificate", [wrong_role; 2], own, operator),
        tls(
            "expired",
            ["ended 1day ago; if it did not, this host's clock may be wrong"; 2],
            own,
            Server { validity: past, ..usual() },
        ),
        tls(
            "not yet valid",
            ["this host's clock may be wrong by 1day"; 2],
            own,
            Server { validity: future, ..usual() },
        ),
        tls("of another name", ["is for another name"; 2], own, Server { dns: Some("manager.example.org"), ..usual() }),
        tls("of another cluster", [UNKNOWN, PIN], &other, Server { uri: "paprika://c2/manager/m1/1", ..usual() }),
        tls("of a retired authority", [UNKNOWN, PIN], &retired, usual()),
        Stranger::new("without our protocol", ["application protocol"; 2], Speech::Tls(Arc::new(mute))),
        Stranger::new("with another protocol", ["application protocol"; 2], Speech::Tls(Arc::new(web))),
        Stranger::new("plain HTTP", ["does not speak TLS"; 2], Speech::Raw(HTTP)),
        Stranger::new("TLS 1.2 alone", ["does not speak TLS 1.3"; 2], Speech::Raw(TLS12)),
    ]
}
