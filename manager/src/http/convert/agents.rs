//! Agents and their certificates.

use api::agents::{Agent, AgentCertificate};
use api::time::Time;
use site::target::Target;

use crate::http::problem::Refusal;
use crate::service::{AgentView, IssuedCertificate};

/// Shows an agent.
pub(in crate::http) fn agent(view: AgentView) -> Agent {
    let AgentView { agent, connected, groups } = view;
    let connected_at = connected.as_ref().map(|session| session.since).or(agent.connected_at);
    let address = connected.as_ref().map(|session| session.address.clone()).or(agent.address);
    Agent {
        name: agent.name,
        generation: agent.generation.0,
        connected: connected.is_some(),
        created_at: Time(agent.created_at),
        connected_at: connected_at.map(Time),
        disconnected_at: agent.disconnected_at.filter(|_| connected.is_none()).map(Time),
        address,
        version: agent.version,
        isolation: agent.isolation,
        cores: agent.cores,
        memory_bytes: agent.memory_bytes,
        groups,
        labels: agent.labels,
        quarantined: agent.quarantined,
        drained: agent.drained,
    }
}

/// Reads an expression over agents.
pub(in crate::http) fn target(field: &str, text: &str) -> Result<Target, Refusal> {
    Target::parse(text).map_err(|error| Refusal::invalid(field, error.to_string()))
}

/// Shows a certificate that was just issued.
pub(in crate::http) fn certificate(issued: IssuedCertificate) -> AgentCertificate {
    AgentCertificate {
        name: issued.agent.name,
        cluster: issued.cluster,
        generation: issued.agent.generation.0,
        chain_pem: issued.chain_pem,
        key_pem: issued.key_pem,
        ca_pem: issued.ca_pem,
        managers: issued.managers,
    }
}
