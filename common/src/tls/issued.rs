//! What a host checks of a certificate that a manager issued for it, before the old one is let go.
//!
//! The manager was proven; its answer is checked all the same: a certificate for another key, name or cluster would
//! lock the host out as soon as it is used (protocol R-JOIN-5, R-RENEW-3).

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use super::authority::is_authority;
use super::configs::provider;
use super::identity::Role;
use super::material::{bundle_hash, chain_from_pem, roots_from_pem};
use super::peers::{Leaf, PeerError, expect};

use crate::id::{Generation, Name};
use crate::limits::{MAX_BUNDLE_PEM, MAX_CHAIN_PEM};

/// What a host asked for.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// SHA-256 over the public key of the request.
    pub spki: [u8; 32],
    /// The host's name.
    pub name: &'a Name,
    /// The cluster; none at first contact, when the answer tells it.
    pub cluster: Option<&'a Name>,
    /// The generation; none at first contact.
    pub generation: Option<Generation>,
    /// The best this host knows of manager time, Unix time.
    pub now: Duration,
}

/// A certificate that is what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIdentity {
    /// What it says.
    pub leaf: Leaf,
    /// The hash of the authorities to trust from now on.
    pub bundle_hash: [u8; 32],
}

/// Why an answer is not taken.
#[derive(Debug, thiserror::Error)]
pub enum IssuedError {
    /// Chain or bundle is too long.
    #[error("the issued certificate or bundle is too long")]
    Long,
    /// Chain or bundle cannot be read.
    #[error("the issued certificate or bundle cannot be read")]
    Unreadable,
    /// The bundle holds something that is no authority.
    #[error("the issued bundle holds a certificate that is not one of an authority")]
    NoAuthority,
    /// It is not one of an agent.
    #[error("the issued certificate is not one of an agent")]
    Peer(#[source] PeerError),
    /// It is for somebody else.
    #[error("the issued certificate is for another {0}")]
    Other(&'static str),
    /// The bundle does not verify it.
    #[error("the issued certificate does not verify under the issued bundle")]
    Chain(#[source] rustls::Error),
}

/// Checks an issued chain and bundle against what was asked for.
///
/// # Errors
/// What is wrong with the answer.
pub fn check_issued(chain_pem: &str, bundle_pem: &str, expected: &Expected<'_>) -> Result<NewIdentity, IssuedError> {
    use IssuedError as E;
    if chain_pem.len() > MAX_CHAIN_PEM || bundle_pem.len() > MAX_BUNDLE_PEM {
        return Err(E::Long);
    }
    let chain = chain_from_pem(chain_pem.as_bytes()).map_err(|_| E::Unreadable)?;
    let bundle = chain_from_pem(bundle_pem.as_bytes()).map_err(|_| E::Unreadable)?;
    if !bundle.iter().all(is_authority) {
        return Err(E::NoAuthority);
    }
    let (end_entity, intermediates) = chain.split_first().ok_or(E::Unreadable)?;
    let leaf = expect(end_entity, Role::Agent).map_err(E::Peer)?;
    if leaf.spki != expected.spki {
        return Err(E::Other("key"));
    }
    if leaf.identity.name != *expected.name {
        return Err(E::Other("name"));
    }
    if expected.cluster.is_some_and(|cluster| leaf.identity.cluster != *cluster) {
        return Err(E::Other("cluster"));
    }
    if expected.generation.is_some_and(|generation| leaf.identity.generation != generation) {
        return Err(E::Other("generation"));
    }
    verify(end_entity, intermediates, bundle_pem, expected.now)?;
    Ok(NewIdentity { leaf, bundle_hash: bundle_hash(&bundle) })
}

/// Tells whether a client's chain, leaf first, verifies under a bundle at a moment (Unix time): what a handshake of now
/// would say about a certificate that was shown earlier.
#[must_use]
pub fn verifies(chain: &[CertificateDer<'_>], bundle_pem: &str, now: Duration) -> bool {
    chain.split_first().is_some_and(|(leaf, rest)| verify(leaf, rest, bundle_pem, now).is_ok())
}

fn verify(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle_pem: &str,
    now: Duration,
) -> Result<(), IssuedError> {
    let roots = roots_from_pem(bundle_pem.as_bytes()).map_err(|_| IssuedError::Unreadable)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|_| IssuedError::NoAuthority)?;
    // Whole seconds, as the certificate counts them.
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()));
    verifier.verify_client_cert(end_entity, intermediates, now).map_err(IssuedError::Chain)?;
    Ok(())
}
