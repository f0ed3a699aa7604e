//! Who there is: actors, agents and their sessions.

use std::collections::BTreeMap;

use common::id::{Epoch, Generation, Incarnation, Name, StorePosition, Uid};
use serde::{Deserialize, Serialize};

/// Unix milliseconds of the manager's clock.
pub type Millis = u64;

/// Who does something: an operator's token, the local socket's user, an agent, or the manager itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor(pub String);

/// What does not change while a store lives, and what says which life it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name of the cluster, drawn when the store was made.
    pub cluster: Name,
    /// Changes when the store is found to be older than what agents remember.
    pub incarnation: Incarnation,
}

/// An agent as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub name: Name,
    pub generation: Generation,
    /// Epoch of the newest session, 0 before the first.
    pub epoch: Epoch,
    pub created_at: Millis,
    /// When the newest session began and how it was reached; `None` before the first.
    pub connected_at: Option<Millis>,
    /// When the newest session ended; `None` while it lasts.
    pub disconnected_at: Option<Millis>,
    pub address: Option<String>,
    pub version: Option<String>,
    pub isolation: Option<String>,
    pub journal: Option<Uid>,
    pub boot_id: Option<String>,
    pub cores: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub labels: BTreeMap<String, String>,
    /// The groups that its join token gave it.
    pub groups: Vec<String>,
    /// The token that it joined with; `None`: an operator made it.
    pub join_token: Option<String>,
    /// Why nobody of this name is served until an operator accepts one.
    pub quarantined: Option<String>,
    /// No new commands are sent.
    pub drained: bool,
}

/// What a session that was just opened says of its agent.
#[derive(Debug, Clone)]
pub struct Connect {
    pub name: Name,
    pub generation: Generation,
    pub journal: Uid,
    pub boot_id: String,
    pub address: String,
    pub version: String,
    pub isolation: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of the public key that it showed; `None`: not looked at.
    pub spki: Option<[u8; 32]>,
}

/// Where the store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub position: StorePosition,
    pub last_event: u64,
}
