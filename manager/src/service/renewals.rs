//! The next certificate of an agent: over its live session, or by itself after the last one expired.
//!
//! ```text
//! session of a bound key ─► Renew{csr} ─────────► store binds the new key beside the old ─► certificate
//! bound key, expired at most 30 days ─► hello ──┘                                └─► first session with it: the old goes
//! ```
//! A key is bound before its certificate leaves, and the old one stays until the new one was seen, so an answer that is
//! lost costs nothing (protocol R-RENEW-2, R-JOIN-6).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::error::Chain;
use common::handshake::{self, IssuedParams, IssuedText, RecoverHello, Refusal};
use common::id::{Generation, Name};
use common::limits;
use common::tls::Csr;
use common::version::Version;
use common::wire::bye::Code;
use common::wire::frame::Body;
use common::wire::nak;
use store::StoreError;
use store::types::{Actor, KeyReason, Millis, NewAgentKey};

use super::admit::allowed_from;
use super::commands::millis;
use super::core::Service;
use super::sessions::{Shown, draining, refusal};
use crate::ca::CaError;
use crate::limits::{RETRY_AFTER_KNOCK, RETRY_AFTER_TROUBLE};

/// What the next certificate will say, fixed before anything is written down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Which authority signs.
    pub(crate) issuer: u32,
    /// Manager time.
    pub(crate) now: Millis,
    /// When it ends.
    pub(crate) not_after: Millis,
    /// How long that is.
    pub(crate) valid: Duration,
}

/// Why an agent gets no certificate over its session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRenewed {
    /// The request is none.
    #[error("{0}")]
    Request(#[from] common::tls::CsrError),
    /// It may be asked again later.
    #[error("the manager cannot issue a certificate now")]
    Later,
    /// The agent may not.
    #[error("{0}")]
    Refused(Refusal),
}

impl NotRenewed {
    /// What the agent's program decides by.
    pub(crate) fn code(&self) -> nak::Code {
        match self {
            Self::Request(_) => nak::Code::Invalid,
            Self::Later => nak::Code::Busy,
            Self::Refused(_) => nak::Code::NotMine,
        }
    }
}

impl Service {
    /// The terms of a certificate that is issued now.
    pub(crate) fn terms(&self) -> Terms {
        let (now, valid) = (self.now(), self.settings().certificate_valid);
        Terms { issuer: self.authority().active(), now, not_after: now.saturating_add(millis(valid)), valid }
    }

    /// Takes the turn of an address whose bearer has no valid certificate. Before any signature is checked.
    pub(crate) fn may_knock(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.knock(address) {
            return Ok(());
        }
        Err(too_often())
    }

    /// Issues the next certificate to an agent in a live session.
    ///
    /// # Errors
    /// What the agent is told.
    pub(crate) async fn renew(
        &self,
        name: &Name,
        generation: Generation,
        by: [u8; 32],
        csr: &[u8],
    ) -> Result<IssuedText, NotRenewed> {
        let csr = Csr::read(csr)?;
        let terms = self.terms();
        let reason = KeyReason::Renewed { by };
        self.bind(name, generation, &csr, terms, reason).await.map_err(|error| match error.retryable() {
            true => NotRenewed::Later,
            false => NotRenewed::Refused(refusal(&error)),
        })?;
        let issued = self.certify(csr, name, generation, terms).await.map_err(|_| NotRenewed::Later)?;
        self.counters().renewals.add(1);
        tracing::info!(agent.id = %name, generation = generation.0, "a certificate was renewed");
        Ok(issued)
    }

    /// Issues the next certificate to an agent that wants nothing else first, mostly because its last one has expired.
    ///
    /// # Errors
    /// What the agent is told.
    pub(crate) async fn recover(&self, hello: RecoverHello, peer: SocketAddr) -> Result<IssuedText, Refusal> {
        if self.draining() {
            return Err(draining());
        }
        let agent = hello.peer;
        let (name, generation) = (&agent.identity.name, agent.identity.generation);
        self.known(Shown { name, generation, spki: agent.spki, address: peer.ip() }).await?;
        // Before anybody is pinged or a signature is checked. The address has no turn to take: strangers at it would use it up.
        if !self.recover_turn(generation) {
            return Err(too_often());
        }
        self.has_no_session(name, generation).await?;
        let csr = Csr::read(&hello.csr).map_err(|error| Refusal::new(Code::AuthFailed, error.to_string()))?;
        let terms = self.terms();
        let reason = match agent.expired {
            true => KeyReason::Recovered { by: agent.spki },
            false => KeyReason::Renewed { by: agent.spki },
        };
        self.bind(name, generation, &csr, terms, reason).await.map_err(|error| refusal(&error))?;
        let issued = self.certify(csr, name, generation, terms).await?;
        self.counters().renewals.add(1);
        tracing::warn!(
            agent.id = %name, generation = generation.0, peer.addr = %peer, expired = agent.expired,
            expired_at = agent.not_after.as_secs(), "an agent had no session and has a new certificate"
        );
        Ok(issued)
    }

    /// Refuses a new key to whoever shows the certificate of an agent that is here: it renews in its session. Otherwise the
    /// holder of a copied key would bind and show one key after the other, never be met as a rival, and lock the agent out.
    async fn has_no_session(&self, name: &Name, generation: Generation) -> Result<(), Refusal> {
        let here = self.registry().handle(name).filter(|here| here.generation() == generation && !here.fenced());
        let Some(here) = here else { return Ok(()) };
        if !here.proves_alive(limits::RIVAL_PING).await {
            return Ok(());
        }
        tracing::warn!(agent.id = %name, "somebody asked for a certificate of an agent that has a session");
        Err(Refusal::new(Code::Overloaded, "the agent has a session and renews in it").retry_after(RETRY_AFTER_TROUBLE))
    }

    /// Signs a certificate for a key that the store knows by now.
    ///
    /// # Errors
    /// When it cannot be made; the agent may ask again.
    pub(crate) async fn certify(
        &self,
        csr: Csr,
        name: &Name,
        generation: Generation,
        terms: Terms,
    ) -> Result<IssuedText, Refusal> {
        let (authority, wanted) = (self.authority().clone(), name.clone());
        let made = tokio::task::spawn_blocking(move || {
            let now = Duration::from_millis(terms.now);
            let chain_pem = authority.issue_agent_for(&csr, &wanted, generation, now, terms.valid)?;
            Ok::<_, CaError>((chain_pem, authority.bundle_pem()))
        });
        let failed = match made.await {
            Ok(Ok((chain_pem, bundle_pem))) => {
                return Ok(IssuedText { chain_pem, bundle_pem, not_after: Duration::from_millis(terms.not_after) });
            }
            Ok(Err(error)) => error,
            Err(_) => CaError::Interrupted,
        };
        tracing::error!(agent.id = %name, error = %Chain(&failed), "a certificate could not be issued");
        let told = "the manager cannot issue a certificate now";
        Err(Refusal::new(Code::Overloaded, told).retry_after(RETRY_AFTER_TROUBLE))
    }

    /// The answer to a hello that asked for a certificate.
    pub(crate) fn issued(&self, version: Version, issued: IssuedText) -> Body {
        handshake::issued(&IssuedParams {
            version,
            cluster: self.store().identity().cluster,
            clock_ms: self.now(),
            issued,
            bundle_hash: self.authority().bundle_hash(),
        })
    }

    /// Tells whether the site lets an agent connect from an address.
    pub(crate) fn may_come_from(&self, name: &Name, address: IpAddr) -> Result<(), Refusal> {
        if allowed_from(self.rights().site(), name, address) {
            return Ok(());
        }
        Err(Refusal::new(Code::AuthFailed, "this agent may not connect from this address"))
    }

    async fn bind(
        &self,
        name: &Name,
        generation: Generation,
        csr: &Csr,
        terms: Terms,
        reason: KeyReason,
    ) -> Result<(), StoreError> {
        let key = NewAgentKey {
            agent: name.clone(),
            generation,
            spki: csr.spki(),
            issuer: terms.issuer,
            not_after: terms.not_after,
            reason,
        };
        self.store().agent_key_add(key, &Actor(format!("agent:{name}")), terms.now).await
    }
}

fn too_often() -> Refusal {
    Refusal::new(Code::Overloaded, "too many ask for a certificate at once").retry_after(RETRY_AFTER_KNOCK)
}
