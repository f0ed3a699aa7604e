//! Who stands at the other end of a TLS connection, from what its certificate says and from nothing else.
//!
//! rustls proved the chain and the key. Here follows what it does not know: exactly one identity, the role that this
//! port is for, and a certificate made for that use (protocol R-TLS-5, R-TLS-6, R-TLS-9).

use std::time::Duration;

use rustls::CommonState;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::configs::ALPN;
use super::identity::{Identity, Role, identity_of};
use crate::pin::sha256;

/// What the certificate of a peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Who its bearer is.
    pub identity: Identity,
    /// SHA-256 over the public key (SubjectPublicKeyInfo, DER): what a key is known by.
    pub spki: [u8; 32],
    /// The beginning of its validity, Unix time.
    pub not_before: Duration,
    /// The end of its validity, Unix time.
    pub not_after: Duration,
}

/// Who dialled the agent link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkPeer {
    /// Nobody we know: it may join and nothing else (protocol R-JOIN-1).
    Stranger,
    /// The bearer of an agent's certificate.
    Agent(AgentPeer),
}

/// An agent whose key TLS has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPeer {
    /// Who it is.
    pub identity: Identity,
    /// Its validity is over: it may ask for the next certificate and nothing else (protocol R-JOIN-6).
    pub expired: bool,
    /// SHA-256 over its public key.
    pub spki: [u8; 32],
    /// The end of its validity, Unix time.
    pub not_after: Duration,
}

/// An operator whose key TLS has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiPeer {
    /// Who it is.
    pub identity: Identity,
    /// SHA-256 over its public key.
    pub spki: [u8; 32],
    /// The end of its validity, Unix time.
    pub not_after: Duration,
}

/// Why a peer's certificate does not make it what we expect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("the peer's certificate cannot be read")]
    Unreadable,
    /// The certificate has no, or more than one, identity URI.
    #[error("the peer's certificate does not hold exactly one paprika:// identity")]
    NotOne,
    /// The identity is of another role.
    #[error("the peer's certificate is one of {}, not of {}", article(.found), article(.expected))]
    WrongRole {
        /// What the certificate says.
        found: Role,
        /// What the peer must be.
        expected: Role,
    },
    /// The certificate is that of an authority, or not made for what its role does.
    #[error("the peer's certificate is not made for the use of {}", article(.0))]
    WrongUse(Role),
    /// The peer did not agree on the application protocol.
    #[error("the peer does not speak the application protocol paprika/1")]
    NoAlpn,
}

fn article(role: &Role) -> &'static str {
    match role {
        Role::Agent => "an agent",
        Role::Manager => "a manager",
        Role::Operator => "an operator",
    }
}

/// Reads what a certificate says of its bearer.
///
/// # Errors
/// When it cannot be read or holds not exactly one identity.
pub fn read_leaf(certificate: &CertificateDer<'_>) -> Result<Leaf, PeerError> {
    let certificate = parse(certificate)?;
    let (not_before, not_after) = times(&certificate)?;
    Ok(Leaf { identity: identity_of(&certificate)?, spki: sha256(certificate.public_key().raw), not_before, not_after })
}

/// Checks, after a TLS handshake of the agent link, that the peer speaks our protocol and has the expected role.
///
/// # Errors
/// Which check failed.
pub fn check_link_peer(connection: &CommonState, expected: Role) -> Result<Identity, PeerError> {
    speaks(connection)?;
    Ok(expect(shown(connection).ok_or(PeerError::NoCertificate)?, expected)?.identity)
}

/// Tells the manager who dialled the agent link. `now` is Unix time.
///
/// # Errors
/// When the certificate that was shown is not one of an agent.
pub fn link_peer(connection: &CommonState, now: Duration) -> Result<LinkPeer, PeerError> {
    speaks(connection)?;
    let Some(certificate) = shown(connection) else {
        return Ok(LinkPeer::Stranger);
    };
    let leaf = expect(certificate, Role::Agent)?;
    Ok(LinkPeer::Agent(AgentPeer {
        identity: leaf.identity,
        expired: now > leaf.not_after,
        spki: leaf.spki,
        not_after: leaf.not_after,
    }))
}

/// Tells the manager who called the API over TLS; nobody when no certificate was shown.
///
/// # Errors
/// When the certificate that was shown is not one of an operator.
pub fn api_peer(connection: &CommonState) -> Result<Option<ApiPeer>, PeerError> {
    let Some(certificate) = shown(connection) else {
        return Ok(None);
    };
    let leaf = expect(certificate, Role::Operator)?;
    Ok(Some(ApiPeer { identity: leaf.identity, spki: leaf.spki, not_after: leaf.not_after }))
}

/// Reads a certificate whose bearer must have this role, and must have got it for that role's use.
pub(super) fn expect(certificate: &CertificateDer<'_>, expected: Role) -> Result<Leaf, PeerError> {
    let leaf = read_leaf(certificate)?;
    let found = leaf.identity.role;
    if found != expected {
        return Err(PeerError::WrongRole { found, expected });
    }
    if is_made_for(&parse(certificate)?, expected) { Ok(leaf) } else { Err(PeerError::WrongUse(expected)) }
}

/// The beginning and the end of a certificate's validity, Unix time.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Result<(Duration, Duration), PeerError> {
    times(&parse(certificate)?)
}

fn speaks(connection: &CommonState) -> Result<(), PeerError> {
    if connection.alpn_protocol() == Some(ALPN) { Ok(()) } else { Err(PeerError::NoAlpn) }
}

fn shown(connection: &CommonState) -> Option<&CertificateDer<'static>> {
    connection.peer_certificates().and_then(<[_]>::first)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PeerError::Unreadable),
    }
}

fn times(certificate: &X509Certificate<'_>) -> Result<(Duration, Duration), PeerError> {
    let validity = certificate.validity();
    // A certificate from before 1970 is none of ours; its beginning may be cut there.
    let unix = |seconds: i64| Duration::from_secs(seconds.max(0).unsigned_abs());
    let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if to < 0 { Err(PeerError::Unreadable) } else { Ok((unix(from), unix(to))) }
}

/// The library accepts a certificate that names no use at all for every use; ours always name theirs.
fn is_made_for(certificate: &X509Certificate<'_>, role: Role) -> bool {
    let Ok(Some(usage)) = certificate.extended_key_usage() else {
        return false;
    };
    let (client, server) = match role {
        Role::Agent | Role::Operator => (true, false),
        Role::Manager => (false, true),
    };
    let signs = match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.digital_signature() && !usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    let plain = match certificate.basic_constraints() {
        Ok(constraints) => constraints.is_none_or(|constraints| !constraints.value.ca),
        Err(_) => false,
    };
    usage.value.client_auth == client && usage.value.server_auth == server && !usage.value.any && signs && plain
}
