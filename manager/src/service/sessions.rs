//! Sessions: who may open one, and what the link asks and reports on behalf of an agent.
//!
//! One live session per name (protocol R-SESSION-4): a newcomer from the same life of the same host takes over;
//! anybody else is only served when the one that is there does not answer, else the name is quarantined.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::error::Chain;
use common::handshake::{Hello, Refusal, WelcomeParams};
use common::id::{Epoch, Generation, Name};
use common::limits;
use common::liveness::interval_for;
use common::wire::bye::Code;
use store::StoreError;
use store::types::{Connect, Due, Taker};

use super::core::Service;
use crate::limits::{RESEND, RETRY_AFTER_RESTORE, RETRY_AFTER_TROUBLE, ROUNDS};
use crate::registry::{Bearer, Closing, Orders, SessionHandle};

/// What the bearer of a certificate hears whose name was given to somebody else.
const EARLIER_BEARER: &str = "the certificate belongs to an earlier bearer of this name";
/// What a copy of an agent hears after the agent has gone on to its next key.
const OTHER_KEY: &str = "the certificate is not one that this agent may show now";

/// A session that was let in.
#[derive(Debug)]
pub struct Opened {
    /// The handle that stands in the registry.
    pub handle: SessionHandle,
    /// The session's end of it.
    pub orders: Orders,
    /// What the agent is told.
    pub welcome: WelcomeParams,
}

/// What TLS has proven of a peer, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// From the certificate.
    pub(super) name: &'a Name,
    /// From the certificate.
    pub(super) generation: Generation,
    /// SHA-256 over the public key.
    pub(super) spki: [u8; 32],
    /// Where it comes from.
    pub(super) address: IpAddr,
}

impl Service {
    /// Decides about a hello whose certificate was verified, and opens the session.
    ///
    /// # Errors
    /// What to tell the agent instead.
    pub(crate) async fn open_session(&self, hello: &Hello, from: SocketAddr) -> Result<Opened, Refusal> {
        if self.draining() {
            return Err(draining());
        }
        let shown = Shown { name: &hello.name, generation: hello.generation, spki: hello.spki, address: from.ip() };
        let address = &from.to_string();
        self.known(shown).await?;
        self.notice_restore(hello).await?;
        for _ in 0..ROUNDS {
            let met = self.meet_rival(hello, address).await?;
            let epoch = self
                .store()
                .agent_connected(connect(hello, address), self.now())
                .await
                .map_err(|error| refusal(&error))?;
            let (handle, orders) = SessionHandle::new(epoch, bearer(hello, address));
            if self.registry().insert(&hello.name, &handle, met, self.now()).is_err() {
                continue;
            }
            // Whoever removed or quarantined the agent, or began to stop, just before it stood in the registry could
            // not reach it there.
            let still = if self.draining() { Err(draining()) } else { self.known(shown).await };
            if let Err(refusal) = still {
                self.close_session(&hello.name, epoch).await;
                return Err(refusal);
            }
            self.counters().sessions.add(1);
            let welcome = self.welcome(hello, epoch);
            return Ok(Opened { handle, orders, welcome });
        }
        Err(Refusal::new(Code::Overloaded, "too many connections claim this name at once")
            .retry_after(RETRY_AFTER_TROUBLE))
    }

    /// Takes a session out of the registry and records its end.
    pub(crate) async fn close_session(&self, name: &Name, epoch: Epoch) {
        self.registry().remove(name, epoch);
        if let Err(error) = self.store().agent_disconnected(name, epoch, self.now()).await {
            tracing::warn!(agent.id = %name, error = %Chain(&error), "the end of a session could not be recorded");
        }
    }

    /// Takes what is due for an agent; what is to be sent is recorded as sent when this returns.
    pub(crate) async fn due(&self, name: &Name, handle: &SessionHandle, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.store().due(Self::taker(name, handle, limit), self.judge(), self.now()).await
    }

    /// What the store needs to know of a session to record something as sent to it.
    pub(super) fn taker(name: &Name, handle: &SessionHandle, limit: usize) -> Taker {
        let (generation, journal) = (handle.generation(), handle.journal());
        Taker { agent: name.clone(), generation, journal, limit, resend: RESEND }
    }

    /// Tells which agents something is due for.
    pub(crate) async fn due_agents(&self) -> Result<Vec<Name>, StoreError> {
        self.store().due_agents(RESEND, self.now()).await
    }

    fn welcome(&self, hello: &Hello, epoch: Epoch) -> WelcomeParams {
        let identity = self.store().identity();
        let heartbeat = self.settings().heartbeat.unwrap_or_else(|| interval_for(self.registry().count()));
        WelcomeParams {
            version: hello.version,
            epoch,
            incarnation: identity.incarnation,
            store_position: self.store().position().position,
            heartbeat,
            manager_addresses: self.settings().link_addresses.clone(),
            cluster: identity.cluster,
            clock_ms: self.now(),
            bundle_hash: Some(self.authority().bundle_hash()),
        }
    }

    /// Refuses agents that the store does not know, in this generation and with this key (protocol R-AUTH-4), or that are
    /// where the site does not want them, before anything is written for them and before they may disturb anybody.
    pub(super) async fn known(&self, shown: Shown<'_>) -> Result<(), Refusal> {
        let agent = self.store().agent(shown.name).await.map_err(|error| refusal(&error))?;
        match agent {
            None => return Err(Refusal::new(Code::AuthFailed, "no agent of this name is known")),
            Some(agent) if agent.generation != shown.generation => {
                return Err(Refusal::new(Code::AuthFailed, EARLIER_BEARER));
            }
            Some(agent) => {
                if let Some(reason) = agent.quarantined {
                    return Err(Refusal::new(Code::Banned, format!("quarantined: {reason}")));
                }
            }
        }
        self.may_come_from(shown.name, shown.address)?;
        // An agent from before keys were written down has none: the first one it shows is bound to it.
        let keys = self.store().agent_keys(shown.generation).await.map_err(|error| refusal(&error))?;
        if keys.is_empty() || keys.iter().any(|key| key.spki == shown.spki) {
            return Ok(());
        }
        Err(Refusal::new(Code::AuthFailed, OTHER_KEY))
    }

    /// Finds out from what an agent remembers that this store was restored from an older copy (protocol R-INV-6).
    async fn notice_restore(&self, hello: &Hello) -> Result<(), Refusal> {
        if !self.behind(hello).await? {
            return Ok(());
        }
        // One at a time: thousands of agents may remember the same thing at once.
        let mut restored = self.restored().lock().await;
        if !self.behind(hello).await? {
            return Ok(());
        }
        let heard = hello.store_position;
        if *restored {
            // A store is restored while no manager runs, so one process meets that once. An agent that claims more
            // must not be able to throw everybody out again and again.
            tracing::warn!(agent.id = %hello.name, heard.position = heard.0, "an agent claims to have heard more than was ever said");
            return Ok(());
        }
        let identity =
            self.store().declare_restored(&hello.name, heard, self.now()).await.map_err(|error| refusal(&error))?;
        *restored = true;
        tracing::error!(
            agent.id = %hello.name, heard.position = heard.0, incarnation = identity.incarnation.0,
            "the store is older than what an agent remembers: it was restored; queued commands wait to be released"
        );
        self.registry().close_all(&Closing::draining("the manager's store was restored", RETRY_AFTER_RESTORE));
        Ok(())
    }

    async fn behind(&self, hello: &Hello) -> Result<bool, Refusal> {
        self.store()
            .is_behind(hello.generation, hello.incarnation, hello.store_position)
            .await
            .map_err(|error| refusal(&error))
    }

    /// Meets whoever has the name now. Answers the epoch that the newcomer may take the place of.
    async fn meet_rival(&self, hello: &Hello, address: &str) -> Result<Option<Epoch>, Refusal> {
        let Some(rival) = self.registry().handle(&hello.name) else {
            return Ok(None);
        };
        // An earlier bearer of the name has no claim to it: it is about to be told so.
        let earlier = rival.generation() != hello.generation;
        if earlier || rival.fenced() || rival.same_life(hello.journal, &hello.boot_id) {
            return Ok(Some(rival.epoch()));
        }
        if !rival.proves_alive(limits::RIVAL_PING).await {
            return Ok(Some(rival.epoch()));
        }
        let reason = format!("two live hosts claim this name: {} and {address}", rival.address());
        tracing::error!(
            agent.id = %hello.name, peer.addr = address, rival.addr = rival.address(),
            "two live hosts show the same certificate; the name is quarantined until an operator accepts it"
        );
        let banned = Closing::banned("two live hosts claim this name");
        if let Err(error) = self.store().quarantine(&hello.name, &reason, self.now()).await {
            tracing::error!(agent.id = %hello.name, error = %Chain(&error), "the quarantine could not be recorded");
        }
        rival.close(&banned);
        Err(banned.refusal().clone())
    }
}

fn bearer(hello: &Hello, address: &str) -> Bearer {
    Bearer {
        generation: hello.generation,
        journal: hello.journal,
        boot_id: hello.boot_id.clone(),
        address: address.to_owned(),
        spki: hello.spki,
        trusts: hello.bundle_hash,
    }
}

fn connect(hello: &Hello, address: &str) -> Connect {
    Connect {
        name: hello.name.clone(),
        generation: hello.generation,
        journal: hello.journal,
        boot_id: hello.boot_id.clone(),
        address: address.to_owned(),
        version: hello.agent_version.clone(),
        isolation: hello.isolation.clone(),
        cores: hello.cores,
        memory_bytes: hello.memory_bytes,
        labels: hello.labels.clone(),
        spki: Some(hello.spki),
    }
}

pub(super) fn draining() -> Refusal {
    Refusal::new(Code::Draining, "the manager is stopping").retry_after(Duration::from_secs(1))
}

/// What an agent is told about trouble with the store. It learns nothing of our insides.
pub(crate) fn refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::Fenced(_) => Refusal::new(Code::AuthFailed, OTHER_KEY),
        StoreError::NotFound { .. } | StoreError::UnknownAgent(_) => {
            Refusal::new(Code::AuthFailed, "no agent of this name is known")
        }
        StoreError::OutOfRange { .. } => Refusal::new(Code::ProtocolError, "a value is out of range"),
        StoreError::Quarantined { reason, .. } => Refusal::new(Code::Banned, format!("quarantined: {reason}")),
        other => {
            tracing::error!(error = %Chain(other), "the store could not record what an agent said");
            Refusal::new(Code::Overloaded, "the manager cannot record anything now").retry_after(RETRY_AFTER_TROUBLE)
        }
    }
}
