//! The agent port: accepts, never waits for a peer, and bounds everybody who has not shown who they are.
//!
//! From the accepted socket to the hello one deadline holds; agents hold theirs to the answer (protocol R-SESSION-2).
//! The caps close the oldest stranger first (R-LIMIT-1), so an honest agent gets in while somebody holds thousands of
//! sockets open.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::backoff::Backoff;
use common::clock::unix_ms;
use common::frame::looks_like_http;
use common::id::Name;
use common::limits;
use common::shutdown::{Shutdown, Tasks};
use common::tls::{TlsAcceptor, link_peer, server};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::admission::{Admission, Caps, Ticket};
use super::greeting::{Greeted, Unserved, greet};
use super::strangers::Strangers;
use crate::papers::Current;
use crate::registry::Closing;
use crate::service::Service;

/// Connections the kernel may hold for us: a fleet that comes back at once.
const BACKLOG: u32 = 4_096;
/// Kernel buffer towards an agent: small, so that a cancel does not wait behind megabytes in the kernel.
const SEND_BUFFER: usize = 256 * 1024;
/// Pauses after an accept failed, e.g. because file descriptors ran out.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// When agents come back to a manager that stops.
const RETRY_AFTER_STOP: Duration = Duration::from_secs(1);
/// What somebody reads who opens the agent port with a browser.
const NOT_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 57\r\n\r\n\
This is the agent port. The API is on its own port (7050)";

/// The bound port.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// What every connection needs.
struct Door {
    papers: Current,
    service: Service,
    cluster: Name,
    tasks: Tasks,
    shutdown: Shutdown,
    strangers: Strangers,
    waiting: Mutex<Waiting>,
}

/// Who has not shown who they are, and how to send each away.
struct Waiting {
    admission: Admission,
    exits: HashMap<Ticket, oneshot::Sender<()>>,
}

impl Listener {
    /// Binds the port.
    ///
    /// # Errors
    /// When the address is taken or may not be used.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Where agents connect, with the port that was really taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves agents until shutdown, then says goodbye to all of them.
    pub async fn serve(
        self,
        service: Service,
        papers: impl Into<Current>,
        caps: Caps,
        shutdown: Shutdown,
        tasks: Tasks,
    ) {
        let waiting = Waiting { admission: Admission::new(caps), exits: HashMap::new() };
        let door = Arc::new(Door {
            papers: papers.into(),
            cluster: service.store().identity().cluster,
            service,
            tasks,
            shutdown,
            strangers: Strangers::new(),
            waiting: Mutex::new(waiting),
        });
        let mut pause = Backoff::new(ACCEPT_PAUSE.0, ACCEPT_PAUSE.1);
        loop {
            let accepted = tokio::select! {
                () = door.shutdown.requested() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause.reset();
                    door.admit(stream, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection on the agent port could not be accepted");
                    sleep(pause.next()).await;
                }
            }
        }
        let goodbye = Closing::draining("the manager is stopping", RETRY_AFTER_STOP);
        door.service.registry().close_all(&goodbye);
    }
}

impl Door {
    /// Gives a newcomer its place and its task. Whoever must go for it goes now.
    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let (exit, sent_away) = oneshot::channel();
        let ticket = {
            let mut waiting = self.waiting();
            let (ticket, evicted) = waiting.admission.enter(peer.ip(), Instant::now());
            waiting.exits.insert(ticket, exit);
            if let Some(evicted) = evicted {
                waiting.exits.remove(&evicted);
                self.service.counters().evicted.add(1);
            }
            ticket
        };
        let door = Arc::clone(self);
        self.tasks.spawn("link.connection", async move {
            let greeted = tokio::select! {
                greeted = timeout(limits::HANDSHAKE, door.greet(stream, peer, ticket)) => match greeted {
                    Ok(greeted) => greeted,
                    Err(_) => Err("the handshake took too long".to_owned()),
                },
                // The sender is dropped by whoever sends this one away.
                _ = sent_away => Err("made room for others before it said who it is".to_owned()),
                () = door.shutdown.requested() => {
                    door.leave(ticket);
                    return;
                }
            };
            let served = match greeted {
                Ok(greeted) => {
                    // Who only asks for a certificate stays among the strangers until it has its answer.
                    if greeted.wants_session() {
                        door.leave(ticket);
                    }
                    greeted.serve(&door.service).await.map_err(|unserved| words(&unserved))
                }
                Err(reason) => Err(reason),
            };
            door.leave(ticket);
            if let Err(reason) = served {
                door.service.counters().strangers.add(1);
                door.strangers.note(peer, &reason);
            }
        });
    }

    /// Everything up to the hello. An error is what the log says.
    async fn greet(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        ticket: Ticket,
    ) -> Result<Greeted<server::TlsStream<TcpStream>>, String> {
        // Both only make things faster; a kernel that refuses them still carries the session.
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
        let mut start = [0; 8];
        let seen = stream.peek(&mut start).await.map_err(|error| format!("the connection failed: {error}"))?;
        if seen == 0 {
            return Err("closed without a byte".to_owned());
        }
        self.waiting().admission.spoke(ticket);
        if looks_like_http(start.get(..seen).unwrap_or_default()) {
            // Read what it said, so that closing does not reset our answer away.
            let mut request = [0; 1024];
            let _ = stream.try_read(&mut request);
            let _ = stream.write_all(NOT_HTTP).await;
            let _ = stream.shutdown().await;
            return Err("the peer speaks HTTP; this port speaks the agent protocol".to_owned());
        }
        let acceptor = TlsAcceptor::from(self.papers.config());
        let tls = acceptor.accept(stream).await.map_err(|error| tls_words(&error))?;
        let now = Duration::from_millis(unix_ms());
        let who = link_peer(tls.get_ref().1, now).map_err(|error| error.to_string())?;
        greet(tls, &who, &self.cluster, peer).await.map_err(|unserved| words(&unserved))
    }

    fn leave(&self, ticket: Ticket) {
        let mut waiting = self.waiting();
        waiting.admission.leave(ticket);
        waiting.exits.remove(&ticket);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the log says about a TLS handshake that failed: the usual mistakes by their name.
fn tls_words(error: &io::Error) -> String {
    let told = error.to_string();
    let hint = if told.contains("SupportedVersions") || told.contains("Tls12") || told.contains("ProtocolVersion") {
        "the peer offers no TLS 1.3; "
    } else if told.contains("ApplicationProtocol") {
        "the peer does not offer the application protocol paprika/1; "
    } else if told.contains("CertificateRequired")
        || told.contains("NoCertificatesPresented")
        || told.contains("no certificates")
    {
        "the peer showed no certificate; "
    } else if told.contains("corrupt message") || told.contains("InvalidContentType") {
        "the peer does not speak TLS; "
    } else {
        ""
    };
    format!("{hint}the TLS handshake failed: {told}")
}

fn words(unserved: &Unserved) -> String {
    common::error::Chain(unserved).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_browser_is_as_long_as_it_says() {
        let text = String::from_utf8_lossy(NOT_HTTP);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
