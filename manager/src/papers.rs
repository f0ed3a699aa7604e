//! The manager's papers: the certificate it shows at both ports and the authorities it believes there, exchanged while
//! both go on serving.
//!
//! ```text
//! authority (prepare, activate, retire) ─► exchange ─► new TLS configurations ─► the next handshake uses them
//!                                             └─► sessions hear of it and tell their agents to renew
//! ```
//! Connections that are open keep what they were made with. Only [`Papers::exchange`] changes anything.

use std::sync::Arc;
use std::time::Duration;

use common::clock::unix_ms;
use common::error::Chain;
use common::id::Name;
use common::shutdown::Shutdown;
use common::tls::{self, CertificateDer, MaterialError, ServerConfig, TlsError};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::ca::{Authority, CaError};
use crate::limits::PAPERS_EXCHANGED;

/// Why there are no usable papers.
#[derive(Debug, thiserror::Error)]
pub enum PapersError {
    /// The certificate cannot be issued.
    #[error("the manager's certificate cannot be issued")]
    Ca(#[source] CaError),
    /// What was issued cannot be read back.
    #[error("the manager's certificate is not usable")]
    Material(#[source] MaterialError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
}

/// What both ports show now.
pub struct Papers {
    authority: Arc<Authority>,
    host: Name,
    names: Vec<String>,
    link: watch::Sender<Arc<Shown>>,
    api: watch::Sender<Arc<Shown>>,
}

/// What one port shows, and whom it believes.
#[derive(Debug)]
struct Shown {
    config: Arc<ServerConfig>,
    /// The trusted authorities, PEM.
    bundle: String,
}

/// What a port shows, which may be something else at the next handshake.
#[derive(Debug, Clone)]
pub struct Current(watch::Receiver<Arc<Shown>>);

impl Current {
    /// The configuration for the next handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.borrow().config)
    }

    /// Tells whether a handshake of now would still believe this chain, leaf first.
    #[must_use]
    pub fn believes(&self, chain: &[CertificateDer<'_>]) -> bool {
        let now = Duration::from_millis(unix_ms());
        tls::verifies(chain, &self.0.borrow().bundle, now)
    }

    /// Waits until the papers were exchanged since the last call; for ever when they never are again.
    ///
    /// # Cancel safety
    /// Safe: an exchange that was not heard is heard the next time.
    pub async fn exchanged(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl From<Arc<ServerConfig>> for Current {
    /// Papers that are never exchanged.
    fn from(config: Arc<ServerConfig>) -> Self {
        Self(watch::channel(Arc::new(Shown { config, bundle: String::new() })).1)
    }
}

impl Papers {
    /// Issues the first ones: for `host`, and for the names that peers may verify it by.
    ///
    /// # Errors
    /// Why they are not usable.
    pub fn new(authority: Arc<Authority>, host: Name, names: Vec<String>) -> Result<Self, PapersError> {
        let (link, api) = issue(&authority, &host, &names)?;
        Ok(Self { authority, host, names, link: watch::Sender::new(link), api: watch::Sender::new(api) })
    }

    /// Who issues certificates.
    #[must_use]
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The configuration of the agent port.
    #[must_use]
    pub fn link(&self) -> Current {
        Current(self.link.subscribe())
    }

    /// The configuration of the API's port.
    #[must_use]
    pub fn api(&self) -> Current {
        Current(self.api.subscribe())
    }

    /// Issues new ones by what the authority is now. It signs and reads files: not for the runtime's threads.
    ///
    /// # Errors
    /// Why they are not usable; the old ones stay in use.
    pub fn exchange(&self) -> Result<(), PapersError> {
        let (link, api) = issue(&self.authority, &self.host, &self.names)?;
        self.link.send_replace(link);
        self.api.send_replace(api);
        Ok(())
    }
}

/// Exchanges the papers now and then, so that a manager that is never restarted does not come to the end of its own
/// certificate.
pub async fn keep_fresh(papers: Arc<Papers>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = sleep(PAPERS_EXCHANGED) => {}
            () = shutdown.requested() => return,
        }
        let fresh = Arc::clone(&papers);
        match tokio::task::spawn_blocking(move || fresh.exchange()).await {
            Ok(Ok(())) => tracing::debug!("the manager's certificate was issued anew"),
            Ok(Err(error)) => {
                tracing::error!(error = %Chain(&error), "the manager's certificate could not be issued anew");
            }
            // The runtime is ending.
            Err(_) => return,
        }
    }
}

fn issue(authority: &Authority, host: &Name, names: &[String]) -> Result<(Arc<Shown>, Arc<Shown>), PapersError> {
    let issued = authority.issue_manager(host, names).map_err(PapersError::Ca)?;
    let bundle = authority.bundle_pem();
    let material = || -> Result<_, MaterialError> {
        let chain = tls::chain_from_pem(issued.chain_pem.as_bytes())?;
        let key = tls::key_from_pem(issued.key_pem.as_bytes())?;
        Ok((chain, key, tls::roots_from_pem(bundle.as_bytes())?))
    };
    let (chain, key, roots) = material().map_err(PapersError::Material)?;
    let link = tls::link_server(chain, key, roots).map_err(PapersError::Tls)?;
    let (chain, key, roots) = material().map_err(PapersError::Material)?;
    let api = tls::api_server(chain, key, roots).map_err(PapersError::Tls)?;
    let shown = |config| Arc::new(Shown { config, bundle: bundle.clone() });
    Ok((shown(link), shown(api)))
}
