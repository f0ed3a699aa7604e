//! Calls about agents.

use common::id::Name;
use http::Method;

use super::calls::{Client, Words, list};
use super::error::ClientError;
use crate::agents::{Agent, AgentCertificate, AgentChange};
use crate::page::Page;

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Lists agents by name.
    pub async fn agents(&self, after: Option<&str>, limit: Option<u32>) -> Result<Page<Agent>, ClientError> {
        self.call(self.get(list("/agents", after, limit))).await
    }

    /// Lists the agents that an expression over names and groups means, by name.
    pub async fn agents_of(
        &self,
        target: &str,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Page<Agent>, ClientError> {
        let mut words = Words::default();
        words.add("target", Some(target));
        words.add("after", after);
        words.add("limit", limit);
        self.call(self.get(words.behind("/agents"))).await
    }

    /// Reads an agent.
    pub async fn agent(&self, name: &Name) -> Result<Agent, ClientError> {
        self.call(self.get(format!("/agents/{name}"))).await
    }

    /// Changes an agent.
    pub async fn change_agent(&self, name: &Name, change: &AgentChange) -> Result<Agent, ClientError> {
        let mut call = self.post(format!("/agents/{name}"), change)?.repeatable();
        call.method = Method::PATCH;
        self.call(call).await
    }

    /// Removes an agent; its name is free again, its certificate worth nothing.
    pub async fn remove_agent(&self, name: &Name) -> Result<(), ClientError> {
        self.send(&self.bare(Method::DELETE, format!("/agents/{name}"))).await.map(drop)
    }

    /// Issues a certificate for an agent, and makes the agent when there is none of the name.
    pub async fn agent_certificate(&self, name: &Name) -> Result<AgentCertificate, ClientError> {
        self.call(self.bare(Method::POST, format!("/agents/{name}/certificate")).repeatable()).await
    }
}
