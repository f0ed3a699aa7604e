//! Agents: the fleet as the store knows it and as it is connected now.

use common::id::Name;
use common::tls::{chain_from_pem, read_leaf};
use site::permission::Permission;
use site::target::Target;
use store::types::{Agent, KeyReason, NewAgentKey};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use crate::ca::CaError;
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
    /// Its groups: those of the site, then those it was enrolled with.
    pub groups: Vec<String>,
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
    /// Lists the agents that a caller may see and a target means, by name, from behind `after`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn agents(
        &self,
        caller: &Caller,
        target: Option<&Target>,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Vec<AgentView>, ServiceError> {
        self.must_somewhere(caller, Permission::AgentRead)?;
        let (rights, limit) = (self.rights(), limit.clamp(1, MAX_PAGE));
        let meant = |name: &Name| target.is_none_or(|target| rights.is_meant(target, name));
        let (mut after, mut shown) = (after, Vec::new());
        loop {
            // A fleet fits into memory, and so does the look at all of it.
            let rows = self.store().agents(after, MAX_PAGE).await?;
            let all_read = rows.len() < MAX_PAGE;
            after = rows.last().map(|agent| agent.name.clone());
            let seen = rows.into_iter().filter(|agent| self.sees_agent(caller, &agent.name) && meant(&agent.name));
            shown.extend(seen.take(limit - shown.len()));
            if all_read || shown.len() >= limit {
                return Ok(shown.into_iter().map(|agent| self.agent_view(agent)).collect());
            }
        }
    }

    /// Shows one agent.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn agent(&self, caller: &Caller, name: &Name) -> Result<AgentView, ServiceError> {
        self.must_somewhere(caller, Permission::AgentRead)?;
        let agent = self.store().agent(name).await?.filter(|agent| self.sees_agent(caller, &agent.name));
        agent.map(|agent| self.agent_view(agent)).ok_or_else(|| ServiceError::not_found("agent", name))
    }

    /// Removes an agent: its name is free, its session ends, its commands end.
    ///
    /// # Errors
    /// When there is none of that name, or the caller may not.
    pub async fn remove_agent(&self, caller: &Caller, name: &Name) -> Result<(), ServiceError> {
        self.must_on(caller, Permission::AgentManage, name, "agent.remove").await?;
        let (name, actor) = (name.clone(), caller.actor.clone());
        let remove = async move |service: Self| {
            service.store().remove_agent(&name, &actor, service.now()).await?;
            service.registry().close(&name, &Closing::banned("the agent was removed"));
            service.groups_changed(&name, &[]).await;
            Ok(())
        };
        self.to_its_end(remove).await
    }

    /// Lifts the quarantine of a name: the next session is served.
    ///
    /// # Errors
    /// When there is none of that name, or the caller may not.
    pub async fn accept_agent(&self, caller: &Caller, name: &Name) -> Result<AgentView, ServiceError> {
        self.must_on(caller, Permission::AgentManage, name, "agent.accept").await?;
        let agent = self.store().accept_agent(name, &caller.actor, self.now()).await?;
        Ok(self.agent_view(agent))
    }

    /// Stops or starts sending new commands to an agent.
    ///
    /// # Errors
    /// When there is none of that name, or the caller may not.
    pub async fn set_drained(&self, caller: &Caller, name: &Name, drained: bool) -> Result<AgentView, ServiceError> {
        self.must_on(caller, Permission::AgentManage, name, "agent.drain").await?;
        let agent = self.store().set_drained(name, drained, &caller.actor, self.now()).await?;
        if !drained {
            self.wake().agent(name);
        }
        Ok(self.agent_view(agent))
    }

    /// Issues a certificate for a name and makes the agent when there is none. The generation stays.
    ///
    /// # Errors
    /// When the caller may not, or the certificate cannot be made.
    pub async fn agent_certificate(&self, caller: &Caller, name: &Name) -> Result<IssuedCertificate, ServiceError> {
        self.must_on(caller, Permission::AgentManage, name, "agent.certificate").await?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        let terms = self.terms();
        let (agent, created) = self.store().ensure_agent(name, &caller.actor, terms.now).await?;
        let authority = self.authority().clone();
        let (wanted, generation) = (name.clone(), agent.generation);
        let made = tokio::task::spawn_blocking(move || {
            let issued = authority.issue_agent(&wanted, generation, terms.valid)?;
            let chain = chain_from_pem(issued.chain_pem.as_bytes()).map_err(CaError::Certificate)?;
            let leaf = chain.first().and_then(|leaf| read_leaf(leaf).ok()).ok_or(CaError::Interrupted)?;
            Ok((issued, leaf.spki, authority.bundle_pem()))
        });
        let (issued, spki, ca_pem) = made
            .await
            .map_err(|_| ServiceError::Certificate(CaError::Interrupted))?
            .map_err(ServiceError::Certificate)?;
        let key = NewAgentKey {
            agent: name.clone(),
            generation,
            spki,
            issuer: terms.issuer,
            not_after: terms.not_after,
            reason: KeyReason::Issued,
        };
        // Bound before it leaves: a certificate whose key is not on record would be refused.
        self.store().agent_key_add(key, &caller.actor, terms.now).await?;
        Ok(IssuedCertificate {
            agent,
            created,
            chain_pem: issued.chain_pem,
            key_pem: issued.key_pem,
            ca_pem,
            managers: self.settings().link_addresses.clone(),
            cluster: self.store().identity().cluster,
        })
    }

    fn agent_view(&self, agent: Agent) -> AgentView {
        let connected = self.registry().session(&agent.name);
        let groups = self.rights().groups(&agent.name).iter().map(ToString::to_string).collect();
        AgentView { agent, connected, groups }
    }
}
