//! One certificate with its key and its authorities, read from three files that must fit together. Blocks.

use std::path::PathBuf;

use common::id::Name;
use common::limits::HASH_BYTES;
use common::tls::{self, CertificateDer, Identity, Leaf, PrivateKeyDer, Role, RootCertStore};

use super::choose::{Known, Place};
use super::credentials::CredentialsError;
use super::schedule::{self, Validity};
use crate::config::AgentConfig;

/// Where an identity lies.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
}

impl Files {
    /// Those that the configuration names.
    pub(crate) fn of(config: &AgentConfig) -> Self {
        Self { cert: config.cert.clone(), key: config.key.clone(), ca: config.ca.clone() }
    }
}

/// What they hold. Key and certificate belong together.
#[derive(Debug)]
pub(crate) struct Material {
    pub(super) identity: Identity,
    pub(super) validity: Validity,
    /// The number from 0 to 1 that spreads its renewal.
    pub(super) fraction: f64,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) trust: Trust,
}

/// Whom an agent trusts.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) roots: RootCertStore,
    pub(super) hash: [u8; HASH_BYTES],
}

impl Material {
    /// Reads and checks them.
    ///
    /// # Errors
    /// When one is missing, can be read by others (the key), is damaged, or is not an agent's; or they do not fit.
    pub(crate) fn load(files: &Files) -> Result<Self, CredentialsError> {
        use CredentialsError as E;
        let chain = tls::load_chain(&files.cert).map_err(E::Material)?;
        let key = tls::load_key(&files.key).map_err(E::Material)?;
        let roots = tls::load_roots(&files.ca).map_err(E::Material)?;
        let authorities = tls::load_chain(&files.ca).map_err(E::Material)?;
        let first = chain.first().ok_or(E::Empty)?;
        let Leaf { identity, not_before, not_after, .. } = tls::read_leaf(first).map_err(E::Identity)?;
        if identity.role != Role::Agent {
            return Err(E::Role(identity.role.as_str()));
        }
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            fraction: schedule::fraction(first),
            identity,
            validity: Validity { from_ms: millis(not_before), until_ms: millis(not_after) },
            chain,
            key,
            trust: Trust { roots, hash: tls::bundle_hash(&authorities) },
        })
    }

    /// Refuses an identity of another host than the configuration names.
    ///
    /// # Errors
    /// With both names.
    pub(crate) fn check_name(&self, wanted: Option<&Name>) -> Result<(), CredentialsError> {
        let found = &self.identity.name;
        match wanted.filter(|wanted| *wanted != found) {
            Some(wanted) => Err(CredentialsError::Name { wanted: wanted.clone(), found: found.clone() }),
            None => Ok(()),
        }
    }

    /// What decides whether it is used.
    pub(super) fn known(&self, place: Place) -> Known {
        Known { place, identity: self.identity.clone(), validity: self.validity }
    }
}
