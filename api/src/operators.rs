//! Operators' certificates as JSON: the other way, beside tokens, of showing who gives an order.

use common::config::HumanDuration;
use common::id::Name;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The wish for an operator's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OperatorCertificateRequest {
    /// How long it is good; the manager's own choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30d"))]
    pub expires_in: Option<HumanDuration>,
    /// A certificate signing request, PEM, for a key that was made elsewhere; only its public key is used. When absent,
    /// the manager makes the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
}

/// An operator's certificate that was just issued.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperatorCertificate {
    /// The operator.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "alice"))]
    pub name: Name,
    /// The name of the cluster.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cluster: Name,
    /// Which bearer of the name.
    pub generation: u64,
    /// When it ends.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub expires_at: Time,
    /// The certificate and what it is signed by, PEM.
    pub chain_pem: String,
    /// The private key, PEM, when the manager made it. Shown only here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<String>,
    /// The certificates that the manager's is signed by, PEM.
    pub ca_pem: String,
}

impl std::fmt::Debug for OperatorCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key must not end up in a log.
        f.debug_struct("OperatorCertificate")
            .field("name", &self.name)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// One certificate of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Operator {
    /// The operator.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "alice"))]
    pub name: Name,
    /// Which bearer of the name.
    pub generation: u64,
    /// What `roles.yml` gives the operator now.
    #[serde(default)]
    pub roles: Vec<String>,
    /// When it was issued.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub created_at: Time,
    /// Who had it issued.
    pub created_by: String,
    /// When it ends by itself.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub expires_at: Time,
    /// When it was revoked.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub revoked_at: Option<Time>,
}
