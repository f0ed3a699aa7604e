//! Keeps the snapshot of rights true: it is read from the store at the start and put anew whenever something changes that
//! rights are made of.
//!
//! ```text
//! token made or revoked ──┐
//! certificate ────────────┼─► store (durable) ─► new snapshot ─► streams look again, what waits is judged again
//! agent joined, removed ──┤
//! revision of the site ───┘
//! ```
//! The store is written first. Whoever dies between the two starts again from the store.

use std::collections::HashMap;
use std::sync::Arc;

use common::error::Chain;
use common::id::Name;
use site::groups::GroupName;
use store::types::{Judge, JudgeAsk};
use tokio::sync::watch;

use super::agents::MAX_PAGE;
use super::core::Service;
use super::error::ServiceError;
use super::rights::{Credential, Credentials, Rights};

/// The store's question before it hands anything out: by the rights as of that moment.
pub(super) fn judge(rights: watch::Receiver<Arc<Rights>>) -> Judge {
    Arc::new(move |ask: &JudgeAsk| {
        let now = rights.borrow().clone();
        now.may_send(ask)
    })
}

impl Service {
    /// Reads everything that rights are made of; before anybody is served.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load_rights(&self) -> Result<(), ServiceError> {
        let _held = self.changing().lock().await;
        let credentials = self.read_credentials().await?;
        let mut enrolled = HashMap::new();
        let mut after = None;
        loop {
            let rows = self.store().agents(after, MAX_PAGE).await?;
            let all_read = rows.len() < MAX_PAGE;
            after = rows.last().map(|agent| agent.name.clone());
            let with_groups = rows.into_iter().filter(|agent| !agent.groups.is_empty());
            enrolled.extend(with_groups.map(|agent| (agent.name, known_groups(&agent.groups))));
            if all_read {
                break;
            }
        }
        let rights = self.rights().with_credentials(credentials).with_enrolled(enrolled);
        let rights = self.with_stored_site(&rights).await?;
        self.rights_slot().send_replace(Arc::new(rights));
        // Whoever died between a change and this judgement left it undone.
        self.refuse_what_waits().await;
        Ok(())
    }

    /// Reads the credentials anew after one was made or revoked; what waits for a revoked one is refused at once.
    ///
    /// # Errors
    /// When the store cannot be read; then the next change, or the next start, reads them.
    pub(crate) async fn credentials_changed(&self) -> Result<(), ServiceError> {
        {
            let _held = self.changing().lock().await;
            let credentials = self.read_credentials().await?;
            self.rights_slot().send_modify(|rights| *rights = Arc::new(rights.with_credentials(credentials)));
        }
        self.refuse_what_waits().await;
        Ok(())
    }

    /// Takes down the groups that an agent was enrolled with; none for one that is gone.
    pub(crate) async fn groups_changed(&self, agent: &Name, groups: &[String]) {
        let _held = self.changing().lock().await;
        let groups = known_groups(groups);
        if self.rights().enrolled(agent) != groups {
            self.rights_slot().send_modify(|rights| *rights = Arc::new(rights.with_groups(agent, groups)));
        }
    }

    /// Judges everything again that waits to be sent. What this misses is judged when it is to be sent.
    pub(super) async fn refuse_what_waits(&self) {
        match self.store().refuse_queued(self.judge(), self.now()).await {
            Ok(refused) if refused.is_empty() => {}
            Ok(refused) => {
                tracing::info!(commands = refused.len(), "commands that nobody may send any more were refused")
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "what waits could not be judged again; it is judged before it is sent")
            }
        }
    }

    async fn read_credentials(&self) -> Result<Credentials, ServiceError> {
        let tokens = self.store().tokens().await?.into_iter().map(|token| {
            let known = Credential {
                operator: token.name,
                scope: token.scope,
                roles: token.roles,
                revoked: token.revoked_at.is_some(),
                expires_at: token.expires_at,
            };
            (token.id, known)
        });
        let certificates = self.store().operator_certs().await?.into_iter().map(|row| {
            let known = Credential::of_certificate(row.name.to_string(), row.revoked_at.is_some(), row.not_after);
            (row.generation, known)
        });
        Ok(Credentials { tokens: tokens.collect(), certificates: certificates.collect() })
    }
}

/// The groups that are names of groups: others were never given out.
fn known_groups(groups: &[String]) -> Vec<GroupName> {
    groups.iter().filter_map(|group| GroupName::parse(group).ok()).collect()
}
