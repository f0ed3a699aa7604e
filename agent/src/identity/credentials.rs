//! An identity ready for use: what it says, and the TLS configuration that proves it.

use std::fmt;
use std::sync::Arc;

use common::id::Name;
use common::limits::HASH_BYTES;
use common::tls::{self, ClientConfig, Identity, MaterialError, PeerError, TimeProvider, TlsError};

use super::choose::Place;
use super::material::{Material, Trust};
use super::schedule::Validity;
use super::time::LinkTime;

/// Who this agent is, as its certificate says, and how it proves it.
pub(crate) struct Credentials {
    /// Where it lies.
    pub(crate) place: Place,
    /// Identity from the certificate.
    pub(crate) identity: Identity,
    /// From when to when the certificate is valid.
    pub(crate) validity: Validity,
    /// The number from 0 to 1 that spreads its renewal.
    pub(crate) fraction: f64,
    /// The hash of the authorities that are trusted with it.
    pub(crate) bundle_hash: [u8; HASH_BYTES],
    /// For TLS.
    pub(crate) config: Arc<ClientConfig>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("place", &self.place)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// Why the agent has no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file is missing or is not what it should be.
    #[error("the identity of this agent cannot be loaded")]
    Material(#[source] MaterialError),
    /// The certificate file is empty.
    #[error("the certificate file holds no certificate")]
    Empty,
    /// The certificate carries no identity of ours.
    #[error("the certificate is not one of this system")]
    Identity(#[source] PeerError),
    /// The certificate is for something else than an agent.
    #[error("the certificate belongs to a {0}, not to an agent")]
    Role(&'static str),
    /// The configuration names another host.
    #[error("the configuration is for `{wanted}` but the certificate for `{found}`")]
    Name {
        /// What the configuration says.
        wanted: Name,
        /// What the certificate says.
        found: Name,
    },
    /// Key, certificate and authority do not fit together.
    #[error("TLS cannot use the identity of this agent")]
    Tls(#[source] TlsError),
}

impl Credentials {
    /// Makes the files' content usable. Whom to trust is an argument: it may be newer than the certificate.
    ///
    /// # Errors
    /// When key and certificate do not fit together.
    pub(super) fn new(
        place: Place,
        material: Material,
        trust: &Trust,
        time: &Arc<LinkTime>,
    ) -> Result<Self, CredentialsError> {
        let Material { identity, validity, fraction, chain, key, .. } = material;
        let clock = Arc::clone(time) as Arc<dyn TimeProvider>;
        let config =
            tls::link_client_with_clock(chain, key, trust.roots.clone(), clock).map_err(CredentialsError::Tls)?;
        Ok(Self { place, identity, validity, fraction, bundle_hash: trust.hash, config })
    }
}
