//! Agents as JSON: one host of the fleet, what an operator may change about it, and its certificate.

use std::collections::BTreeMap;

use common::id::Name;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// An agent and whether it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agent {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "web1"))]
    pub name: Name,
    /// Which bearer of the name it is.
    pub generation: u64,
    /// Whether it is connected to this manager now.
    pub connected: bool,
    /// When the name was taken.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub created_at: Time,
    /// When the newest session began.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub connected_at: Option<Time>,
    /// When the newest session ended.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub disconnected_at: Option<Time>,
    /// Where the newest session came from.
    pub address: Option<String>,
    /// Version of the agent's program.
    pub version: Option<String>,
    /// How well commands are fenced in there: `cgroup` or `best_effort`.
    pub isolation: Option<String>,
    /// Processor cores.
    pub cores: Option<u32>,
    /// Memory of the host.
    pub memory_bytes: Option<u64>,
    /// Its groups: what `groups.yml` gives its name, then what it joined with.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Labels from its configuration.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Why nobody of this name is served until an operator accepts one.
    pub quarantined: Option<String>,
    /// No new commands are sent.
    pub drained: bool,
}

/// What to change about an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AgentChange {
    /// Stop or resume sending it new commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<bool>,
    /// `true` lifts its quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<bool>,
}

/// A certificate that was just issued, with all an agent needs beside it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentCertificate {
    /// The name it is for.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: Name,
    /// The name of the cluster.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cluster: Name,
    /// Which bearer of the name.
    pub generation: u64,
    /// The certificate and what it is signed by, PEM.
    pub chain_pem: String,
    /// The private key, PEM. Shown only here.
    pub key_pem: String,
    /// The certificate that the agent trusts, PEM.
    pub ca_pem: String,
    /// Where the agent reaches the manager, `host:port`.
    pub managers: Vec<String>,
}

impl std::fmt::Debug for AgentCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key must not end up in a log.
        f.debug_struct("AgentCertificate")
            .field("name", &self.name)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
