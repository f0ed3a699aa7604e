//! Binds the doors and accepts connections. It never waits for a peer: everything slow happens in the connection's task.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use common::backoff::Backoff;
use common::shutdown::{Shutdown, Tasks};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::connection::{self, Connections};
use super::local;
use super::places::Places;
use super::routes;
use crate::papers::Current;
use crate::service::Service;

/// Pauses after a failed accept: descriptors are short, and come back when other connections end.
const ACCEPT_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Connections of the Unix socket at the same time: more people than work on one host. The port has no part in them.
pub(super) const LOCAL_CONNECTIONS: usize = 64;
/// How often a full house is told about.
const FULL_LOG: Duration = Duration::from_secs(10);

/// What the doors need to know.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Where TLS is spoken; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the Unix socket is made; `None` makes none.
    pub socket: Option<PathBuf>,
    /// Connections of the TLS port at the same time.
    pub max_connections: usize,
    /// The same for one address.
    pub max_connections_per_address: usize,
}

/// Where the doors are.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The address of the TLS port, with the real port.
    pub api: SocketAddr,
    /// The Unix socket.
    pub socket: Option<PathBuf>,
}

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("the API cannot listen on {address}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("the API socket {path} cannot be made", path = path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Opens the doors and serves until `shutdown`; every task runs in `tasks`.
///
/// # Errors
/// When a door cannot be opened; then none is.
pub async fn serve(
    config: HttpConfig,
    service: Service,
    papers: impl Into<Current>,
    shutdown: &Shutdown,
    tasks: &Tasks,
) -> Result<Bound, ServeError> {
    let bind = |source| ServeError::Bind { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
    let api = listener.local_addr().map_err(bind)?;
    let socket = match &config.socket {
        Some(path) => {
            let made = local::Socket::bind(path).map_err(|source| ServeError::Socket { path: path.clone(), source })?;
            Some(made)
        }
        None => None,
    };
    let connections = Connections { app: routes::app(service), shutdown: shutdown.clone(), tasks: tasks.clone() };
    if let Some(socket) = socket {
        let places = Places::new(LOCAL_CONNECTIONS, LOCAL_CONNECTIONS);
        tasks.spawn("http local door", local::accept(socket, places, connections.clone()));
    }
    let places = Places::new(config.max_connections, config.max_connections_per_address);
    tasks.spawn("http door", accept(listener, papers.into(), places, connections));
    Ok(Bound { api, socket: config.socket })
}

async fn accept(listener: TcpListener, papers: Current, places: Places, connections: Connections) {
    let mut pauses = AcceptPauses::default();
    let mut full = FullHouse::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.shutdown.requested() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                pauses.reset();
                let Some(place) = places.of(peer.ip()) else {
                    full.refused();
                    continue;
                };
                let (papers, served) = (papers.clone(), connections.clone());
                connections.tasks.spawn("http connection", async move {
                    connection::serve_tls(socket, peer, papers, served).await;
                    drop(place);
                });
            }
            Err(error) => pauses.after(&error).await,
        }
    }
    info!("The API takes no new connections");
}

/// Waits after failed accepts instead of spinning.
pub(super) struct AcceptPauses(Backoff);

impl Default for AcceptPauses {
    fn default() -> Self {
        Self(Backoff::new(ACCEPT_PAUSES.0, ACCEPT_PAUSES.1))
    }
}

impl AcceptPauses {
    pub(super) fn reset(&mut self) {
        self.0.reset();
    }

    pub(super) async fn after(&mut self, error: &io::Error) {
        warn!(error = %error, "A connection to the API could not be accepted");
        sleep(self.0.next()).await;
    }
}

/// Tells about refused connections, seldom.
#[derive(Default)]
pub(super) struct FullHouse {
    refused: u64,
    told: Option<Instant>,
}

impl FullHouse {
    pub(super) fn refused(&mut self) {
        self.refused += 1;
        let due = self.told.is_none_or(|told| told.elapsed() >= FULL_LOG);
        if due {
            warn!(
                refused = self.refused,
                "The API, or one address, has as many connections as it may; new ones are closed"
            );
            self.refused = 0;
            self.told = Some(Instant::now());
        }
    }
}
