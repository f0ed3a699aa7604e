//! Operators' tokens as JSON. A secret is shown once, when the token is made.

use common::config::HumanDuration;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// What a token may do at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Start and cancel commands, and read.
    Run,
    /// Read.
    Read,
}

impl Scope {
    /// All scopes, the strongest first.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Run, Self::Read];

    /// The name in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Run => "run",
            Self::Read => "read",
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text names no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one of admin, run, read")]
pub struct UnknownScope;

impl std::str::FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// The wish for a new token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is for; shown in the audit as who did something.
    #[cfg_attr(feature = "openapi", schema(example = "ci"))]
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// How long it lives; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30d"))]
    pub expires_in: Option<HumanDuration>,
    /// The roles its bearer has, beside those that `roles.yml` gives an operator of this name. When absent, the roles of
    /// whoever makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = json!(["deployer"])))]
    pub roles: Option<Vec<String>>,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// The part of it that is no secret.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may do at the most.
    pub scope: Scope,
    /// The roles it was given.
    #[serde(default)]
    pub roles: Vec<String>,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub created_at: Time,
    /// Who made it.
    pub created_by: String,
    /// When it ends by itself.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub expires_at: Option<Time>,
    /// When it was revoked.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub revoked_at: Option<Time>,
    /// When it was last used, roughly.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub last_used_at: Option<Time>,
}

/// A token that was just made, with the secret that is shown only now.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// All about it but the secret.
    pub token: Token,
    /// What to send as bearer.
    pub secret: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret must not end up in a log.
        f.debug_struct("NewToken").field("token", &self.token).finish_non_exhaustive()
    }
}
