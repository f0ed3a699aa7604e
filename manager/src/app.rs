//! The manager as a whole: the order of its start and of its stop.
//!
//! ```text
//! lock ─► store ─► CA, papers ─► rights ─► first token ─► doors ─► background ─► READY
//! stop: no new work (API answers 503) ─► doors close, sessions finish and get Bye{DRAINING} ─► tasks end ─► store closes
//! ```

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::site::roles::ADMIN;
use common::durable;
use common::error::Chain;
use common::id::Name;
use common::shutdown::{Shutdown, Tasks};
use rustix::fs::{FlockOperation, flock};
use sd_notify::NotifyState;
use store::types::{Actor, Retention, Scope};
use store::{Store, StoreError};
use tokio::sync::oneshot;

use crate::audit::{CheckpointFile, Keeper, Signer};
use crate::background::{self, Rounds, watchdog};
use crate::ca::{Authority, CaError};
use crate::config::ManagerConfig;
use crate::fanout::{self, Wake};
use crate::http::{self, HttpConfig, ServeError};
use crate::link::admission::Caps;
use crate::link::listener::Listener;
use crate::metrics::Metrics;
use crate::papers::{self, Papers, PapersError};
use crate::registry::Registry;
use crate::service::seals::{self, Seals};
use crate::service::{Parts, Service, ServiceError, Settings};
use crate::site;

/// Where a manager that is up can be reached.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The HTTPS port.
    pub api: SocketAddr,
    /// The port for agents.
    pub link: SocketAddr,
    /// What both are verified by.
    pub ca_pem: String,
    /// The first operator's token.
    pub token_path: PathBuf,
    /// The local socket.
    pub socket_path: PathBuf,
}

/// Why a manager did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration contradicts itself.
    #[error("the configuration is not usable: {0}")]
    Config(String),
    /// A file or folder of the manager cannot be used.
    #[error("{path} cannot be used", path = path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another manager runs here.
    #[error("another manager works in {path}", path = path.display())]
    Locked {
        /// Its folder.
        path: PathBuf,
    },
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[source] StoreError),
    /// The audit cannot be signed; the text holds the whole chain.
    #[error("the audit cannot be signed: {0}")]
    Audit(String),
    /// The certificate authority cannot be used.
    #[error("the certificate authority cannot be used")]
    Ca(#[source] CaError),
    /// The manager's own certificate cannot be made or used.
    #[error("the ports have nothing to show")]
    Papers(#[source] PapersError),
    /// The port for agents cannot be opened.
    #[error("the agent port {address} cannot be opened")]
    Link {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The API cannot be opened.
    #[error("the API cannot be opened")]
    Api(#[source] ServeError),
    /// The first operator's token cannot be made.
    #[error("the first token cannot be made")]
    Token(#[source] ServiceError),
    /// What rights are made of cannot be read.
    #[error("the rights of operators cannot be read")]
    Rights(#[source] ServiceError),
    /// Some work did not end in time.
    #[error("stopped while work was still under way: {}", .0.join(", "))]
    Late(Vec<&'static str>),
}

/// Runs a manager until `shutdown` is requested. `ready` hears when it can be reached.
///
/// # Errors
/// Why it could not start, or what was late when it stopped.
pub async fn run(config: ManagerConfig, shutdown: Shutdown, ready: oneshot::Sender<Ready>) -> Result<(), RunError> {
    config.check().map_err(RunError::Config)?;
    let folder = config.dir.clone();
    // Held until the end of this function.
    let _lock = blocking(move || lock(&folder)).await?;
    let store = Store::open(&config.dir).await.map_err(RunError::Store)?;
    let tasks = Tasks::new();
    let started = start(&config, &store, &shutdown, &tasks).await;
    let (service, where_to) = match started {
        Ok(started) => started,
        Err(error) => {
            // Whatever was started hears that it is over before the store goes.
            shutdown.request();
            tasks.join(config.stop_within.0).await;
            store.close().await;
            return Err(error);
        }
    };
    service.set_ready();
    watchdog::tell(&[NotifyState::Ready]);
    tracing::info!(api = %where_to.api, link = %where_to.link, dir = %config.dir.display(), "manager ready");
    // The starter may not care.
    let _ = ready.send(where_to);

    shutdown.requested().await;
    watchdog::tell(&[NotifyState::Stopping]);
    tracing::info!("manager stopping");
    service.drain();
    let late = tasks.join(config.stop_within.0).await;
    store.close().await;
    if late.is_empty() {
        tracing::info!("manager stopped");
        return Ok(());
    }
    tracing::warn!(tasks = ?late, "some work did not end in time");
    Err(RunError::Late(late))
}

async fn start(
    config: &ManagerConfig,
    store: &Store,
    shutdown: &Shutdown,
    tasks: &Tasks,
) -> Result<(Service, Ready), RunError> {
    let cluster = store.identity().cluster;
    let (dir, wanted) = (config.dir.clone(), cluster.clone());
    let now = Duration::from_millis(common::clock::unix_ms());
    let authority = blocking(move || Authority::open(&dir, &wanted, now).map_err(RunError::Ca)).await?;
    let credentials = std::env::var_os(seals::CREDENTIALS_VARIABLE);
    let source = seals::Source::choose(config.secrets.key_file.as_deref(), credentials, &config.dir);
    let seals = blocking(move || Ok(Seals::load(&source))).await?;
    let host = host_name();
    let link = config.link.listen;
    let listener = Listener::bind(link).map_err(|source| RunError::Link { address: link, source })?;
    let addresses = advertised(config, &host, listener.address());
    let mut names = config.api.names.clone();
    names.extend(addresses.iter().filter_map(|address| address.rsplit_once(':').map(|(host, _)| host.to_owned())));
    let names: Vec<_> = names.iter().map(|name| name.trim_matches(['[', ']']).to_owned()).collect();
    let papers = blocking(move || Papers::new(Arc::new(authority), host, names).map_err(RunError::Papers)).await?;
    let papers = Arc::new(papers);
    let ca_pem = papers.authority().bundle_pem();

    let service = Service::new(Parts {
        store: store.clone(),
        registry: Registry::new(),
        papers: Arc::clone(&papers),
        settings: Settings {
            link_addresses: addresses,
            lost_after: config.lost_after.0,
            certificate_valid: config.link.certificate_valid.0,
            heartbeat: config.link.heartbeat.map(|beat| beat.0),
            seals,
            ..Settings::default()
        },
        metrics: Arc::new(Metrics::default()),
        shutdown: shutdown.clone(),
        wake: Wake::new(),
    });
    service.carry_time_on().await.map_err(RunError::Store)?;
    service.keep_audit(audit_keeper(&config.dir, &cluster).await?);
    service.load_rights().await.map_err(RunError::Rights)?;
    first_token(&service, &config.token_path()).await?;

    let link = listener.address();
    let caps =
        Caps { overall: config.link.max_unauthenticated, per_address: config.link.max_unauthenticated_per_address };
    let http = HttpConfig {
        listen: config.api.listen,
        socket: Some(config.socket_path()),
        max_connections: config.api.max_connections,
        max_connections_per_address: config.api.max_connections_per_address,
    };
    let bound = http::serve(http, service.clone(), papers.api(), shutdown, tasks).await.map_err(RunError::Api)?;
    if let Some(folder) = &config.site.dir {
        let watch = site::run(service.clone(), folder.clone(), config.site.poll.0, shutdown.clone());
        tasks.spawn("site", watch);
    }
    tasks.spawn("fanout", fanout::run(service.clone(), shutdown.clone()));
    tasks.spawn("link", listener.serve(service.clone(), papers.link(), caps, shutdown.clone(), tasks.clone()));
    let retention = Retention { commands: config.retention.commands.0, events: config.retention.events.0, audit: None };
    tasks.spawn("papers", papers::keep_fresh(papers, shutdown.clone()));
    background::run(&service, Rounds { retention, lost_after: config.lost_after.0 }, shutdown, tasks);
    watchdog::run(&service, shutdown, tasks);
    let (token_path, socket_path) = (config.token_path(), config.socket_path());
    Ok((service, Ready { api: bound.api, link, ca_pem, token_path, socket_path }))
}

/// Opens, or makes, what the head of the audit is signed with.
async fn audit_keeper(dir: &Path, cluster: &Name) -> Result<Keeper, RunError> {
    let (key, lines, cluster) = (dir.join("audit.key"), dir.join("audit.checkpoints"), cluster.clone());
    blocking(move || {
        let opened = Signer::open(&key, &cluster).and_then(|signer| Keeper::open(signer, CheckpointFile::new(lines)));
        opened.map_err(|error| RunError::Audit(Chain(&error).to_string()))
    })
    .await
}

/// Makes the folder and takes it for this process alone.
fn lock(dir: &Path) -> Result<File, RunError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| RunError::File { path, source }
    };
    durable::create_folder(dir).map_err(unusable(dir))?;
    let path = dir.join("lock");
    let file = match durable::create_new(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => File::options().write(true).open(&path),
        made => made,
    };
    let file = file.map_err(unusable(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(RunError::Locked { path: dir.to_owned() }),
        Err(errno) => Err(RunError::File { path, source: errno.into() }),
    }
}

/// Makes the first operator's token when there is no file with one, or the file is older than the store.
async fn first_token(service: &Service, path: &Path) -> Result<(), RunError> {
    let file = path.to_owned();
    let kept = blocking(move || match std::fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RunError::File { path: file, source }),
    })
    .await?;
    // A token that was revoked stays so: only one that this store never heard of is replaced.
    if let Some(text) = kept
        && service.token_is_known(text.trim()).await.map_err(RunError::Token)?
    {
        return Ok(());
    }
    let manager = Actor("manager".to_owned());
    let (_, text) = service
        .make_token("admin", Scope::Admin, vec![ADMIN.to_owned()], None, &manager)
        .await
        .map_err(RunError::Token)?;
    // Written last: a start that died before it leaves a token that nobody knows, which is no token.
    let (file, wanted) = (path.to_owned(), path.to_owned());
    blocking(move || {
        durable::replace(&file, format!("{text}\n").as_bytes())
            .map_err(|source| RunError::File { path: wanted, source })
    })
    .await
}

/// What agents are told to dial.
fn advertised(config: &ManagerConfig, host: &Name, bound: SocketAddr) -> Vec<String> {
    if !config.link.advertise.is_empty() {
        return config.link.advertise.clone();
    }
    if bound.ip().is_unspecified() {
        return vec![format!("{host}:{}", bound.port())];
    }
    vec![bound.to_string()]
}

fn host_name() -> Name {
    let told = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let fallback = || "localhost".parse::<Name>();
    match told.and_then(|name| name.parse().ok()).map_or_else(fallback, Ok) {
        Ok(name) => name,
        Err(_) => unreachable!("localhost is a name, as a test shows"),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(RunError::Ca(CaError::Interrupted)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_host_always_has_a_name() {
        assert!(!host_name().as_str().is_empty());
        assert!("localhost".parse::<Name>().is_ok());
    }

    #[test]
    fn a_folder_has_one_manager() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(RunError::Locked { .. })));
        drop(first);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn agents_are_told_what_they_can_reach() {
        let config = ManagerConfig::default();
        let host: Name = "m1".parse().unwrap();
        assert_eq!(advertised(&config, &host, "0.0.0.0:7051".parse().unwrap()), ["m1:7051"]);
        assert_eq!(advertised(&config, &host, "10.0.0.1:7051".parse().unwrap()), ["10.0.0.1:7051"]);
    }
}
