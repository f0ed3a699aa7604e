//! Join tokens as JSON: what lets a new host become an agent. The line with the secret is shown once.

use common::config::HumanDuration;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The wish for a join token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// Groups that a host gets when it joins with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(example = json!(["web"])))]
    pub groups: Vec<String>,
    /// How many hosts may join with it; one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = 1))]
    pub uses: Option<u32>,
    /// How long it is good; an hour when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "1h"))]
    pub expires_in: Option<HumanDuration>,
    /// The names a host may take, as a pattern with `*` and `?`; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "web*"))]
    pub name: Option<String>,
    /// The networks a host may join from, `address` or `address/bits`; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(example = json!(["10.1.0.0/16"])))]
    pub addresses: Vec<String>,
}

/// A join token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JoinToken {
    /// The part of it that is no secret.
    pub id: String,
    /// Groups that a host gets when it joins with it.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How many hosts may join with it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// The names a host may take; any when absent.
    pub name: Option<String>,
    /// The networks a host may join from; any when empty.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub created_at: Time,
    /// Who made it.
    pub created_by: String,
    /// When it ends by itself.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub expires_at: Time,
    /// When it was revoked.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub revoked_at: Option<Time>,
}

/// A join token that was just made, with the line that is shown only now.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewJoinToken {
    /// All about it but the secret.
    pub token: JoinToken,
    /// The line to give to `paprika-agent join`: where the manager is, which authority to expect, id and secret.
    pub text: String,
}

impl std::fmt::Debug for NewJoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret must not end up in a log.
        f.debug_struct("NewJoinToken").field("token", &self.token).finish_non_exhaustive()
    }
}
