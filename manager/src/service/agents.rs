//! Agents: the fleet as the store knows it and as it is connected now.

use common::id::Name;
use store::types::{Agent, AuditEntry, AuditOutcome, Scope};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use crate::registry::{Closing, SessionInfo};

/// Agents in one page of a list.
pub const MAX_PAGE: usize = 1_000;

/// An agent together with its session, if it has one here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentView {
    /// The row.
    pub agent: Agent,
    /// The session it has now.
    pub connected: Option<SessionInfo>,
}

/// Everything an agent needs to connect.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// The row the certificate belongs to.
    pub agent: Agent,
    /// The agent was made by this call.
    pub created: bool,
    /// Certificate and issuer, PEM.
    pub chain_pem: String,
    /// Private key, PEM. It is not kept here.
    pub key_pem: String,
    /// What the agent verifies managers by, PEM.
    pub ca_pem: String,
    /// Addresses for the agent's config, `host:port`.
    pub managers: Vec<String>,
    /// Name of the cluster.
    pub cluster: Name,
}

impl Service {
    /// Lists agents by name, from behind `after`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn agents(
        &self,
        caller: &Caller,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Vec<AgentView>, ServiceError> {
        caller.may(Scope::Read)?;
        let rows = self.store().agents(after, limit.clamp(1, MAX_PAGE)).await?;
        Ok(rows.into_iter().map(|agent| self.agent_view(agent)).collect())
    }

    /// Shows one agent.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn agent(&self, caller: &Caller, name: &Name) -> Result<AgentView, ServiceError> {
        caller.may(Scope::Read)?;
        let agent = self.store().agent(name).await?;
        agent.map(|agent| self.agent_view(agent)).ok_or_else(|| ServiceError::not_found("agent", name))
    }

    /// Removes an agent: its name is free, its session ends, its commands end.
    ///
    /// # Errors
    /// When there is none of that name, or the caller may not.
    pub async fn remove_agent(&self, caller: &Caller, name: &Name) -> Result<(), ServiceError> {
        self.admin(caller, "agent.remove", name).await?;
        self.store().remove_agent(name, &caller.actor, self.now()).await?;
        self.registry().close(name, &Closing::banned("the agent was removed"));
        Ok(())
    }

    /// Lifts the quarantine of a name: the next session is served.
    ///
    /// # Errors
    /// When there is none of that name, or the caller may not.
    pub async fn accept_agent(&self, caller: &Caller, name: &Name) -> Result<AgentView, ServiceError> {
        self.admin(caller, "agent.accept", name).await?;
        self.store().accept_agent(name, &caller.actor, self.now()).await?;
        self.agent(caller, name).await
    }

    /// Stops or starts sending new commands to an agent.
    ///
    /// # Errors
    /// When there is none of that name, or the caller may not.
    pub async fn set_drained(&self, caller: &Caller, name: &Name, drained: bool) -> Result<AgentView, ServiceError> {
        self.admin(caller, "agent.drain", name).await?;
        self.store().set_drained(name, drained, &caller.actor, self.now()).await?;
        if !drained {
            self.wake().agent(name);
        }
        self.agent(caller, name).await
    }

    /// Issues a certificate for a name and makes the agent when there is none. The generation stays.
    ///
    /// # Errors
    /// When the caller may not, or the certificate cannot be made.
    pub async fn agent_certificate(&self, caller: &Caller, name: &Name) -> Result<IssuedCertificate, ServiceError> {
        self.admin(caller, "agent.certificate", name).await?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        let now = self.now();
        let (agent, created) = self.store().ensure_agent(name, &caller.actor, now).await?;
        let authority = self.authority().clone();
        let (wanted, generation) = (name.clone(), agent.generation);
        let valid = self.settings().certificate_valid;
        let issued = tokio::task::spawn_blocking(move || authority.issue_agent(&wanted, generation, valid))
            .await
            .map_err(|_| ServiceError::Certificate(crate::ca::CaError::Interrupted))?
            .map_err(ServiceError::Certificate)?;
        let entry = AuditEntry {
            actor: caller.actor.clone(),
            action: "agent.certificate".to_owned(),
            object: format!("agent:{name}"),
            outcome: AuditOutcome::Done,
            details: serde_json::json!({ "generation": agent.generation.0, "valid_s": valid.as_secs() }).to_string(),
        };
        self.store().audit(entry, now).await?;
        Ok(IssuedCertificate {
            agent,
            created,
            chain_pem: issued.chain_pem,
            key_pem: issued.key_pem,
            ca_pem: self.authority().ca_pem().to_owned(),
            managers: self.settings().link_addresses.clone(),
            cluster: self.store().identity().cluster,
        })
    }

    /// Checks that the caller may change the fleet; a refusal is on record.
    async fn admin(&self, caller: &Caller, action: &str, name: &Name) -> Result<(), ServiceError> {
        let checked = caller.may(Scope::Admin);
        if let Err(refusal) = &checked {
            self.note_refusal(caller, action, &format!("agent:{name}"), refusal).await;
        }
        checked
    }

    fn agent_view(&self, agent: Agent) -> AgentView {
        let connected = self.registry().session(&agent.name);
        AgentView { agent, connected }
    }
}
