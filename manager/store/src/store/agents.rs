//! Agents, their sessions and their keys.

use common::id::{CommandId, Epoch, Generation, Name};

use super::{Result, Store};
use crate::types::{Actor, Agent, AgentKey, Connect, Millis, NewAgentKey};

/// Agents and their sessions.
impl Store {
    /// Makes an agent if there is none of this name; tells whether it was made now.
    pub async fn ensure_agent(&self, name: &Name, actor: &Actor, now: Millis) -> Result<(Agent, bool)> {
        self.0.ensure_agent(name, actor, now).await
    }

    /// Finds an agent.
    pub async fn agent(&self, name: &Name) -> Result<Option<Agent>> {
        self.0.agent(name).await
    }

    /// Lists agents by name, behind `after`.
    pub async fn agents(&self, after: Option<Name>, limit: usize) -> Result<Vec<Agent>> {
        self.0.agents(after, limit).await
    }

    /// Counts agents.
    pub async fn agent_count(&self) -> Result<u64> {
        self.0.agent_count().await
    }

    /// Removes an agent: the name is free, its generation never comes back, its queued commands are cancelled and its
    /// other unfinished ones interrupted. Answers the commands that ended.
    pub async fn remove_agent(&self, name: &Name, actor: &Actor, now: Millis) -> Result<Vec<CommandId>> {
        self.0.remove_agent(name, actor, now).await
    }

    /// Lifts a quarantine; without one nothing changes.
    pub async fn accept_agent(&self, name: &Name, actor: &Actor, now: Millis) -> Result<Agent> {
        self.0.accept_agent(name, actor, now).await
    }

    /// Serves nobody of this name until an operator accepts one.
    pub async fn quarantine(&self, name: &Name, reason: &str, now: Millis) -> Result<()> {
        self.0.quarantine(name, reason, now).await
    }

    /// Stops or resumes sending new commands.
    pub async fn set_drained(&self, name: &Name, drained: bool, actor: &Actor, now: Millis) -> Result<Agent> {
        self.0.set_drained(name, drained, actor, now).await
    }

    /// Records a new session and answers its epoch, one above all earlier ones.
    ///
    /// # Errors
    /// `NotFound`, `Fenced` for another generation, `Quarantined`.
    pub async fn agent_connected(&self, connect: Connect, now: Millis) -> Result<Epoch> {
        self.0.agent_connected(connect, now).await
    }

    /// Records the end of a session, if it is still the newest.
    pub async fn agent_disconnected(&self, name: &Name, epoch: Epoch, now: Millis) -> Result<()> {
        self.0.agent_disconnected(name, epoch, now).await
    }
}

/// Keys that agents may show.
impl Store {
    /// Binds another key to an agent that is to get a certificate for it. The one that was used last stays until the new
    /// one is used; others go.
    ///
    /// # Errors
    /// `NotFound`; `Fenced` for another generation, or when the key that asks is not one of the agent's; `Quarantined`
    /// unless an operator asked.
    pub async fn agent_key_add(&self, key: NewAgentKey, actor: &Actor, now: Millis) -> Result<()> {
        self.0.agent_key_add(key, actor, now).await
    }

    /// Lists the keys of an agent, oldest first; none for one that was certified before keys were written down and has
    /// not connected since.
    pub async fn agent_keys(&self, generation: Generation) -> Result<Vec<AgentKey>> {
        self.0.agent_keys(generation).await
    }

    /// Notes that a key was shown: older ones are of no use any more. [`Store::agent_connected`] does the same.
    pub async fn key_seen(&self, generation: Generation, spki: [u8; 32], now: Millis) -> Result<()> {
        self.0.key_seen(generation, spki, now).await
    }

    /// Counts agents without a certificate of this authority that they have shown.
    pub async fn agents_without_issuer(&self, issuer: u32) -> Result<u64> {
        self.0.agents_without_issuer(issuer).await
    }
}
