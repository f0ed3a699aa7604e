//! Who may connect and who may do what: join tokens, keys of agents, certificates of operators, and the authority by
//! which a command was submitted.

use std::sync::Arc;

use common::id::{Generation, Name};
use serde::{Deserialize, Serialize};

use super::fleet::{Actor, Millis};

/// A token with which new agents join; its secret is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenRow {
    /// The public half of the token.
    pub id: String,
    pub created_at: Millis,
    pub created_by: Actor,
    pub expires_at: Millis,
    /// How many agents it lets in, and how many it has.
    pub uses: u32,
    pub used: u32,
    /// Which names it allows; `None`: any.
    pub name_pattern: Option<String>,
    /// The groups that its agents get.
    pub groups: Vec<String>,
    /// Networks it may be used from; empty: from anywhere.
    pub cidrs: Vec<String>,
    pub revoked_at: Option<Millis>,
}

/// A join token that is to be made.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    pub id: String,
    /// Of the secret.
    pub hash: [u8; 32],
    pub expires_at: Millis,
    pub uses: u32,
    pub name_pattern: Option<String>,
    pub groups: Vec<String>,
    pub cidrs: Vec<String>,
}

/// What a host that wants to join shows, and the certificate it would get.
#[derive(Debug, Clone)]
pub struct JoinClaim {
    pub token_id: String,
    pub secret_hash: [u8; 32],
    /// SHA-256 of its public key.
    pub spki: [u8; 32],
    pub name: Name,
    /// Where it came from, for the audit.
    pub address: String,
    /// The authority that will sign, and until when the certificate will hold.
    pub issuer: u32,
    pub not_after: Millis,
    pub now: Millis,
}

/// An agent that joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOutcome {
    pub agent: Name,
    pub generation: Generation,
    pub groups: Vec<String>,
    /// The same key had joined before; nothing was used up, and the certificate may be issued again.
    pub repeated: bool,
}

/// Why a join is refused. A peer hears less than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefused {
    /// No token has this id and secret.
    #[error("no such join token")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired")]
    Expired,
    /// An operator took it back, or the store was restored.
    #[error("the join token was revoked")]
    Revoked,
    /// It let in as many as it may.
    #[error("the join token is used up")]
    Used,
    /// It does not allow this name, or not with these groups.
    #[error("the token does not allow this name")]
    Name,
    /// It may not be used from there.
    #[error("the token does not allow this address")]
    Address,
    /// An agent of this name exists.
    #[error("an agent of this name exists")]
    Taken,
}

/// Why the manager's own check does not let a claim in: what the peer may hear, and the whole reason for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAdmitted {
    pub refused: JoinRefused,
    pub why: String,
}

impl NotAdmitted {
    /// The token does not allow the name.
    #[must_use]
    pub fn name(why: impl Into<String>) -> Self {
        Self { refused: JoinRefused::Name, why: why.into() }
    }

    /// The token does not allow the address.
    #[must_use]
    pub fn address(why: impl Into<String>) -> Self {
        Self { refused: JoinRefused::Address, why: why.into() }
    }
}

/// A key that an agent may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentKey {
    pub generation: Generation,
    /// SHA-256 of the public key.
    pub spki: [u8; 32],
    /// Number of the authority that signed; `None`: it was certified before keys were written down.
    pub issuer: Option<u32>,
    pub issued_at: Millis,
    pub not_after: Option<Millis>,
    /// `None`: no session has shown it.
    pub first_used_at: Option<Millis>,
}

/// A key that an agent is to get a certificate for.
#[derive(Debug, Clone)]
pub struct NewAgentKey {
    pub agent: Name,
    pub generation: Generation,
    pub spki: [u8; 32],
    pub issuer: u32,
    pub not_after: Millis,
    pub reason: KeyReason,
}

/// Why an agent gets a certificate for another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyReason {
    /// The agent asked for it, in a session of this key.
    Renewed { by: [u8; 32] },
    /// The agent asked for it after its certificate had expired, with this key.
    Recovered { by: [u8; 32] },
    /// An operator asked for it.
    Issued,
}

/// A certificate of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorCert {
    pub name: Name,
    pub generation: Generation,
    pub created_at: Millis,
    pub created_by: Actor,
    pub not_after: Millis,
    pub revoked_at: Option<Millis>,
}

/// By which right something is done: who, and how they showed who they are. Stored with a command, so that the right can
/// be weighed again when it is to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Authority {
    /// The name that roles know.
    pub actor: String,
    pub via: Via,
}

/// How a caller showed who they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A token.
    Token { id: String },
    /// A client certificate.
    Certificate { generation: Generation },
    /// The local socket.
    Local { uid: u32 },
}

/// A command that is about to be sent for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeAsk {
    /// `None`: the manager itself, or a release that did not keep it.
    pub authority: Option<Authority>,
    pub agent: Name,
    /// The groups that the agent got when it joined.
    pub groups: Vec<String>,
    pub operation: String,
    pub user: Option<String>,
}

/// Tells whether a command may still be sent. It runs on the store's threads: it must be quick and wait for nothing.
pub type Judge = Arc<dyn Fn(&JudgeAsk) -> bool + Send + Sync>;

/// The judge that lets everybody.
#[must_use]
pub fn everybody() -> Judge {
    Arc::new(|_| true)
}
