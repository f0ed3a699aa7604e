//! The hello that asks for a session: what an agent says of itself, typed and bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bundle::{hash_bytes, optional_hash};
use super::refusal::Refusal;
use crate::id::{Generation, Incarnation, Name, StorePosition, Uid};
use crate::limits;
use crate::tls::AgentPeer;
use crate::version::Version;
use crate::wire::ClientHello;
use crate::wire::bye::Code;
use crate::wire::frame::Body;

/// What an agent says of itself.
#[derive(Debug, Clone)]
pub struct HelloParams {
    /// The name in its certificate.
    pub name: Name,
    /// The cluster in its certificate.
    pub cluster: Name,
    /// The boot of the host.
    pub boot_id: String,
    /// The identity of its state directory.
    pub journal: Uid,
    /// The last incarnation it heard; 0 at first contact.
    pub incarnation: u64,
    /// The highest store position it heard.
    pub store_position: u64,
    /// Processor cores.
    pub cores: u32,
    /// Memory of the host.
    pub memory_bytes: u64,
    /// What its configuration says about it. Never believed for rights.
    pub labels: BTreeMap<String, String>,
    /// Its program version, for people.
    pub agent_version: String,
    /// How commands are isolated.
    pub isolation: String,
    /// Optional behaviour it offers.
    pub capabilities: Vec<String>,
    /// The hash of the authorities it trusts; none when it does not tell.
    pub bundle_hash: Option<[u8; limits::HASH_BYTES]>,
}

/// Builds the first frame of an agent that wants a session.
#[must_use]
pub fn hello(params: &HelloParams) -> Body {
    Body::ClientHello(client_hello(params))
}

pub(super) fn client_hello(params: &HelloParams) -> ClientHello {
    ClientHello {
        protocol_min: Version::OLDEST as u32,
        protocol_max: Version::NEWEST as u32,
        capabilities: params.capabilities.clone(),
        agent_name: params.name.to_string(),
        cluster_id: params.cluster.to_string(),
        boot_id: params.boot_id.clone(),
        journal_id: params.journal.to_wire(),
        incarnation: params.incarnation,
        store_position: params.store_position,
        cores: params.cores,
        memory_bytes: params.memory_bytes,
        labels: params.labels.clone().into_iter().collect(),
        agent_version: params.agent_version.clone(),
        isolation: params.isolation.clone(),
        join: None,
        csr: bytes::Bytes::new(),
        bundle_hash: hash_bytes(params.bundle_hash),
    }
}

/// A hello that passed: everything in it has a type and a bound.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The version both sides will speak.
    pub version: Version,
    /// What the agent offers.
    pub capabilities: Vec<String>,
    /// From the certificate.
    pub name: Name,
    /// From the certificate.
    pub generation: Generation,
    /// The identity of the agent's state directory.
    pub journal: Uid,
    /// The boot of the host.
    pub boot_id: String,
    /// The last incarnation the agent heard.
    pub incarnation: Incarnation,
    /// The highest store position the agent heard.
    pub store_position: StorePosition,
    /// Processor cores, as claimed.
    pub cores: u32,
    /// Memory, as claimed.
    pub memory_bytes: u64,
    /// Labels, as claimed.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub agent_version: String,
    /// How commands are isolated, as claimed.
    pub isolation: String,
    /// The hash of the authorities it trusts, as claimed.
    pub bundle_hash: Option<[u8; limits::HASH_BYTES]>,
    /// SHA-256 over the public key of its certificate.
    pub spki: [u8; 32],
    /// The end of its certificate, Unix time.
    pub not_after: Duration,
}

/// Reads the hello of an agent whose certificate was compared with it.
pub(super) fn read_session(hello: &ClientHello, peer: &AgentPeer, version: Version) -> Result<Hello, Refusal> {
    let violation = |reason: &str| Refusal::new(Code::ProtocolError, reason);
    let journal = Uid::from_wire(&hello.journal_id).map_err(|_| violation("journal_id has not 16 bytes"))?;
    Ok(Hello {
        version,
        capabilities: hello.capabilities.clone(),
        name: peer.identity.name.clone(),
        generation: peer.identity.generation,
        journal,
        boot_id: hello.boot_id.clone(),
        incarnation: Incarnation(hello.incarnation),
        store_position: StorePosition(hello.store_position),
        cores: hello.cores,
        memory_bytes: hello.memory_bytes,
        labels: hello.labels.clone().into_iter().collect(),
        agent_version: hello.agent_version.clone(),
        isolation: hello.isolation.clone(),
        bundle_hash: optional_hash(&hello.bundle_hash).map_err(violation)?,
        spki: peer.spki,
        not_after: peer.not_after,
    })
}
