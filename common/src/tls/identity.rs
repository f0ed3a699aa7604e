//! Who a certificate says its bearer is: one URI, parsed into parts and compared part by part.
//!
//! `paprika://<cluster>/<agent|manager|operator>/<name>/<generation>` (protocol R-TLS-5)

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::peers::PeerError;
use crate::id::{Generation, Name};

/// What a certificate entitles its bearer to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A host.
    Agent,
    /// A manager.
    Manager,
    /// A person or program that gives orders.
    Operator,
}

impl Role {
    /// The word in the URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Manager => "manager",
            Self::Operator => "operator",
        }
    }
}

/// The identity in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Which cluster issued it.
    pub cluster: Name,
    /// What the bearer is.
    pub role: Role,
    /// What the bearer is called.
    pub name: Name,
    /// Which bearer of that name.
    pub generation: Generation,
}

/// A URI is not an identity of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URI is not of the form paprika://<cluster>/<role>/<name>/<generation>")]
pub struct IdentityError;

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, role, name, generation } = self;
        write!(f, "paprika://{cluster}/{}/{name}/{generation}", role.as_str())
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let rest = uri.strip_prefix("paprika://").ok_or(IdentityError)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [cluster, role, name, generation] = parts.as_slice() else {
            return Err(IdentityError);
        };
        let role = [Role::Agent, Role::Manager, Role::Operator]
            .into_iter()
            .find(|known| known.as_str() == *role)
            .ok_or(IdentityError)?;
        let digits = !generation.is_empty() && generation.bytes().all(|digit| digit.is_ascii_digit());
        let identity = Self {
            cluster: cluster.parse().map_err(|_| IdentityError)?,
            role,
            name: name.parse().map_err(|_| IdentityError)?,
            generation: Generation(generation.parse().map_err(|_| IdentityError)?),
        };
        // One identity has one spelling: `007` is not `7`.
        if digits && identity.to_string() == uri { Ok(identity) } else { Err(IdentityError) }
    }
}

/// Reads the identity in a verified certificate.
///
/// # Errors
/// When there is not exactly one.
pub fn peer_identity(certificate: &CertificateDer<'_>) -> Result<Identity, PeerError> {
    let (rest, certificate) = X509Certificate::from_der(certificate).map_err(|_| PeerError::Unreadable)?;
    if rest.is_empty() { identity_of(&certificate) } else { Err(PeerError::Unreadable) }
}

/// The same for a certificate that was parsed already.
pub(super) fn identity_of(certificate: &X509Certificate<'_>) -> Result<Identity, PeerError> {
    let names = certificate.subject_alternative_name().map_err(|_| PeerError::Unreadable)?.ok_or(PeerError::NotOne)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().map_err(|_| PeerError::NotOne),
        _ => Err(PeerError::NotOne),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protocol R-TLS-5.
    #[test]
    fn an_identity_has_one_spelling() {
        let uri = "paprika://c-1/agent/web1.example/7";
        assert_eq!(uri.parse::<Identity>().map(|identity| identity.to_string()), Ok(uri.to_owned()));
        for bad in [
            "",
            "paprika://",
            "paprika://c/agent/web1",
            "paprika://c/agent/web1/7/8",
            "paprika://c/chief/web1/7",
            "paprika://c/agent/web1/07",
            "paprika://c/agent/web1/+7",
            "paprika://c/agent/web1/-1",
            "paprika://c/agent//7",
            "paprika://c/agent/../7",
            "paprika://c/Agent/web1/7",
            "http://c/agent/web1/7",
            "paprika://c/agent/web1/7 ",
            "paprika://c/agent/web1\n/7",
            "paprika://c/agent/web1/99999999999999999999",
        ] {
            assert_eq!(bad.parse::<Identity>(), Err(IdentityError), "{bad:?}");
        }
    }

    #[test]
    fn garbage_is_not_a_certificate() {
        assert_eq!(peer_identity(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])), Err(PeerError::Unreadable));
    }
}
