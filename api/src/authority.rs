//! The certificate authority as JSON: which certificates are trusted, which one signs, and the three steps of a rotation.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The authority of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Authority {
    /// The number of the certificate that signs now.
    pub active: u32,
    /// All that are trusted, by number.
    pub trusted: Vec<TrustedCertificate>,
    /// Those together, PEM.
    pub bundle_pem: String,
    /// How many agents the next step of a rotation would meet unprepared.
    pub agents_without: u64,
}

/// One certificate that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrustedCertificate {
    /// Its number.
    pub number: u32,
    /// SHA-256 over its DER form, 64 hexadecimal digits: the pin in join tokens and of `paprika login`.
    pub sha256: String,
    /// When it ends.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub not_after: Time,
    /// What it is called.
    pub subject: String,
}

/// One step of a rotation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AuthorityChange {
    /// Also when agents would be shut out by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}
