//! The authority of the cluster and its rotation, which needs no host to join again.
//!
//! ```text
//! one authority ─► prepare: a second is trusted ─► activate: it signs ─► retire: the first is trusted no more
//!                    every agent is told to renew, and hears of both      once every agent has shown its new certificate
//! ```
//! Each step is on disk before the papers of the ports change, and may be repeated after a crash.

use common::error::Chain;
use common::id::Name;
use serde_json::json;
use site::permission::Permission;
use store::types::{Actor, AuditEntry, AuditOutcome};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use crate::ca::{Authority, CaError, Trusted};
use crate::papers::PapersError;
use crate::registry::{Closing, SessionHandle};

/// The authority as it is now.
#[derive(Debug, Clone)]
pub struct AuthorityView {
    /// Which one signs.
    pub active: u32,
    /// All that are trusted, by number.
    pub trusted: Vec<Trusted>,
    /// Those together, PEM.
    pub bundle_pem: String,
    /// How many agents the next step would meet unprepared.
    pub agents_without: u64,
}

/// A step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Prepare,
    Activate,
    Retire,
}

impl Step {
    fn action(self) -> &'static str {
        match self {
            Self::Prepare => "ca.prepare",
            Self::Activate => "ca.activate",
            Self::Retire => "ca.retire",
        }
    }
}

impl Service {
    /// Shows the authority.
    ///
    /// # Errors
    /// When the caller may not, or the store cannot be read.
    pub async fn authority_view(&self, caller: &Caller) -> Result<AuthorityView, ServiceError> {
        self.must(caller, Permission::CaManage, "ca.read", "ca").await?;
        self.view_authority().await
    }

    /// Makes the next authority. It is trusted from now on, and signs nothing yet.
    ///
    /// # Errors
    /// When the caller may not, or a rotation is under way.
    pub async fn authority_prepare(&self, caller: &Caller) -> Result<AuthorityView, ServiceError> {
        self.rotate(caller, Step::Prepare, false).await
    }

    /// Signs with the next authority from now on.
    ///
    /// # Errors
    /// When the caller may not, or none was prepared.
    pub async fn authority_activate(&self, caller: &Caller) -> Result<AuthorityView, ServiceError> {
        self.rotate(caller, Step::Activate, false).await
    }

    /// Trusts the earlier authorities no more. Sessions and connections by their certificates end.
    ///
    /// # Errors
    /// When the caller may not, there is none to retire, or agents would be shut out and nobody insists.
    pub async fn authority_retire(&self, caller: &Caller, force: bool) -> Result<AuthorityView, ServiceError> {
        self.rotate(caller, Step::Retire, force).await
    }

    async fn rotate(&self, caller: &Caller, step: Step, force: bool) -> Result<AuthorityView, ServiceError> {
        self.must(caller, Permission::CaManage, step.action(), "ca").await?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        let actor = caller.actor.clone();
        self.to_its_end(async move |service: Self| service.step(actor, step, force).await).await?;
        self.view_authority().await
    }

    /// Takes a step with everything that belongs to it, one at a time.
    async fn step(self, actor: Actor, step: Step, force: bool) -> Result<(), ServiceError> {
        let _held = self.rotating().lock().await;
        let unprepared = self.unprepared().await?;
        if step == Step::Retire && unprepared > 0 && !force {
            let text = format!(
                "{unprepared} agents have not shown a certificate of the active authority yet; \
                 they would have to join again"
            );
            return Err(ServiceError::Conflict { code: "agents_without", text });
        }
        let papers = self.papers().clone();
        let (before, after) = tokio::task::spawn_blocking(move || {
            let authority = papers.authority();
            let before = numbers(authority);
            let taken = take(authority, step);
            // Also after a step that was taken before: what came behind it then may have failed.
            papers.exchange().map_err(failed)?;
            taken?;
            Ok::<_, ServiceError>((before, numbers(authority)))
        })
        .await
        .map_err(|_| ServiceError::Certificate(CaError::Interrupted))??;
        tracing::info!(step = step.action(), trusted = ?after, "the certificate authority has taken a step");
        // Before anything that may fail: whoever stands on what is trusted no more is cut off in any case.
        if step == Step::Retire {
            self.cut_retired(&after).await;
        }
        let details = json!({ "before": before, "after": after, "force": force, "agents_without": unprepared });
        let entry = AuditEntry {
            actor,
            action: step.action().to_owned(),
            object: "ca".to_owned(),
            outcome: AuditOutcome::Done,
            details: details.to_string(),
        };
        Ok(self.store().audit(entry, self.now()).await?)
    }

    async fn view_authority(&self) -> Result<AuthorityView, ServiceError> {
        let agents_without = self.unprepared().await?;
        let authority = self.authority();
        Ok(AuthorityView {
            active: authority.active(),
            trusted: authority.trusted(),
            bundle_pem: authority.bundle_pem(),
            agents_without,
        })
    }

    /// Counts agents that the next step would meet unprepared: before an activation those that have not said that they
    /// trust all authorities, before a retirement those that have shown no certificate of the active one.
    async fn unprepared(&self) -> Result<u64, ServiceError> {
        let authority = self.authority();
        let (active, trusted) = (authority.active(), authority.trusted());
        let Some(newest) = trusted.iter().map(|one| one.number).max().filter(|_| trusted.len() > 1) else {
            return Ok(0);
        };
        if active == newest {
            return Ok(self.store().agents_without_issuer(active).await?);
        }
        let told = self.registry().count_trusting(&authority.bundle_hash());
        Ok(self.store().agent_count().await?.saturating_sub(told))
    }

    /// Ends sessions that stand on a certificate of an authority that is trusted no more.
    async fn cut_retired(&self, trusted: &[u32]) {
        let word = Closing::untrusted("the authority of this certificate was retired");
        for (name, handle) in self.registry().all() {
            if !self.stands_on(&name, &handle, trusted).await {
                handle.close(&word);
            }
        }
    }

    async fn stands_on(&self, name: &Name, handle: &SessionHandle, trusted: &[u32]) -> bool {
        match self.store().agent_keys(handle.generation()).await {
            Ok(keys) => {
                // Without a number it was certified before there was more than one authority.
                let issuer = keys.iter().find(|key| key.spki == handle.spki()).map(|key| key.issuer.unwrap_or(1));
                issuer.is_some_and(|issuer| trusted.contains(&issuer))
            }
            Err(error) => {
                tracing::warn!(agent.id = %name, error = %Chain(&error), "the keys of an agent could not be read");
                false
            }
        }
    }
}

fn take(authority: &Authority, step: Step) -> Result<(), ServiceError> {
    let taken = match step {
        Step::Prepare => authority.prepare(std::time::Duration::from_millis(common::clock::unix_ms())).map(drop),
        Step::Activate => authority.activate().map(drop),
        Step::Retire => authority.retire().map(drop),
    };
    taken.map_err(|error| match error {
        CaError::Step(text) => ServiceError::Conflict { code: "wrong_step", text: text.to_owned() },
        other => ServiceError::Certificate(other),
    })
}

fn failed(error: PapersError) -> ServiceError {
    match error {
        PapersError::Ca(error) => ServiceError::Certificate(error),
        other => {
            tracing::error!(error = %Chain(&other), "the manager's papers could not be exchanged");
            ServiceError::Certificate(CaError::Interrupted)
        }
    }
}

fn numbers(authority: &Authority) -> Vec<u32> {
    authority.trusted().iter().map(|one| one.number).collect()
}
