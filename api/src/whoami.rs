//! Who the caller is to the manager, as JSON.

use common::id::Name;
use serde::{Deserialize, Serialize};

use crate::time::Time;
use crate::tokens::Scope;

/// How a caller showed who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// By a bearer token.
    Token,
    /// By a client certificate.
    Certificate,
    /// By the kernel, on the local socket.
    Local,
}

impl Via {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Local => "local",
        }
    }
}

/// Who the caller is and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Whoami {
    /// As the audit names it.
    #[cfg_attr(feature = "openapi", schema(example = "alice"))]
    pub actor: String,
    /// How it showed that.
    pub via: Via,
    /// The id of its token.
    #[serde(default)]
    pub token: Option<String>,
    /// What its credential allows at the most.
    pub scope: Scope,
    /// The roles it has now.
    pub roles: Vec<String>,
    /// What these allow on at least one agent, or at all where no agent is concerned.
    pub permissions: Vec<String>,
    /// When its credential ends.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub expires_at: Option<Time>,
    /// The name of the cluster.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cluster: Name,
}
