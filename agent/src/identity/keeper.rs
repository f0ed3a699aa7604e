//! The owner of this agent's identities: which one is used now, which comes next when it is refused, and how another one
//! is added.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::error::Chain;
use common::handshake::IssuedText;
use common::tls::{self, Expected, IssuedError, KeyRequest};
use tracing::warn;

use super::choose::{Place, Slot, order, target};
use super::credentials::{Credentials, CredentialsError};
use super::material::{Material, Trust};
use super::schedule::Age;
use super::slots::{Pem, Slots};
use super::time::LinkTime;
use crate::commands::FileError;

/// All identities of this agent.
#[derive(Debug)]
pub(crate) struct Keeper {
    current: Credentials,
    /// What comes next when the current one is refused, in this order.
    others: VecDeque<Credentials>,
    /// How many have been refused since one was accepted.
    refused: usize,
    slots: Slots,
    time: Arc<LinkTime>,
}

/// All that is needed to make the next identity, for whoever asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Successor {
    identity: tls::Identity,
    slot: Slot,
    slots: Slots,
    time: Arc<LinkTime>,
}

/// Why a certificate that was issued is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuccessorError {
    #[error("the certificate that was issued is not what was asked for")]
    Issued(#[source] IssuedError),
    #[error("the certificate that was issued cannot be kept")]
    File(#[source] FileError),
    #[error("the certificate that was kept cannot be used")]
    Credentials(#[source] CredentialsError),
    #[error("keeping the certificate was cut short")]
    Cut,
}

impl Keeper {
    /// Finds the identities in the slots beside the configured one and begins with the youngest. Blocks: file reads.
    ///
    /// # Errors
    /// When the configured one cannot be used. A slot that cannot is left out, and named in the log.
    pub(crate) fn open(configured: Material, state_dir: &Path, time: Arc<LinkTime>) -> Result<Self, CredentialsError> {
        let slots = Slots::new(state_dir);
        let mut found = vec![(Place::Configured, configured)];
        for slot in Slot::ALL.into_iter().filter(|slot| slots.is_filled(*slot)) {
            match Material::load(&slots.files(slot)) {
                Ok(material) => found.push((Place::Slot(slot), material)),
                Err(error) => unusable(slot, &error),
            }
        }
        let known: Vec<_> = found.iter().map(|(place, material)| material.known(*place)).collect();
        let places = match known.split_first() {
            Some((configured, slots)) => order(configured, slots),
            None => Vec::new(),
        };
        let mut trust: Option<Trust> = None;
        let mut usable = VecDeque::new();
        for place in places {
            let Some(at) = found.iter().position(|(found, _)| *found == place) else { continue };
            let (_, material) = found.swap_remove(at);
            // The authorities of the youngest count for all: trust that was taken back must not return with an old slot.
            let youngest = trust.clone().unwrap_or_else(|| material.trust.clone());
            match (Credentials::new(place, material, &youngest, &time), place) {
                (Ok(credentials), _) => {
                    trust = Some(youngest);
                    usable.push_back(credentials);
                }
                (Err(error), Place::Slot(slot)) => unusable(slot, &error),
                (Err(error), Place::Configured) => return Err(error),
            }
        }
        let current = usable.pop_front().ok_or(CredentialsError::Empty)?;
        Ok(Self { current, others: usable, refused: 0, slots, time })
    }

    /// The one that is used now.
    pub(crate) fn current(&self) -> &Credentials {
        &self.current
    }

    /// How old that one is.
    pub(crate) fn age(&self) -> Age {
        self.current.validity.age(self.time.now_ms())
    }

    /// A manager took it.
    pub(crate) fn accepted(&mut self) {
        self.refused = 0;
    }

    /// A manager that proved who it is does not know the current one. Turns to the next; answers whether that one is
    /// worth an attempt, because it has not been refused as well.
    pub(crate) fn refused(&mut self) -> bool {
        let Some(next) = self.others.pop_front() else { return false };
        self.others.push_back(std::mem::replace(&mut self.current, next));
        self.refused += 1;
        let untried = self.refused <= self.others.len();
        if !untried {
            self.refused = 0;
        }
        untried
    }

    /// Takes a new one into use; what lay in its slot is gone.
    pub(crate) fn adopt(&mut self, new: Credentials) {
        let old = std::mem::replace(&mut self.current, new);
        self.others.push_front(old);
        let place = self.current.place;
        self.others.retain(|other| other.place != place);
        self.refused = 0;
    }

    /// What is needed to make the next one.
    pub(crate) fn successor(&self) -> Successor {
        let current = self.current.place;
        let mut all: Vec<_> = self.others.iter().chain([&self.current]).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.validity));
        let usable: Vec<_> = all.into_iter().map(|one| one.place).collect();
        let slot = target(current, &usable);
        Successor {
            identity: self.current.identity.clone(),
            slot,
            slots: self.slots.clone(),
            time: Arc::clone(&self.time),
        }
    }

    /// The time that certificates are judged by.
    pub(crate) fn time(&self) -> &Arc<LinkTime> {
        &self.time
    }
}

impl Successor {
    /// Checks what a manager issued for a key of ours, keeps it, and makes it usable. Blocks: file writes.
    ///
    /// # Errors
    /// When it is not what was asked for, or cannot be kept.
    pub(crate) fn keep(&self, request: &KeyRequest, issued: &IssuedText) -> Result<Credentials, SuccessorError> {
        use SuccessorError as E;
        let expected = Expected {
            spki: request.spki,
            name: &self.identity.name,
            cluster: Some(&self.identity.cluster),
            generation: Some(self.identity.generation),
            now: Duration::from_millis(self.time.now_ms()),
        };
        tls::check_issued(&issued.chain_pem, &issued.bundle_pem, &expected).map_err(E::Issued)?;
        let pem = Pem { key: request.key_pem.expose(), chain: &issued.chain_pem, bundle: &issued.bundle_pem };
        self.slots.write(self.slot, pem).map_err(E::File)?;
        // Read back: what is used now is what the next start will find.
        let material = Material::load(&self.slots.files(self.slot)).map_err(E::Credentials)?;
        let trust = material.trust.clone();
        Credentials::new(Place::Slot(self.slot), material, &trust, &self.time).map_err(E::Credentials)
    }
}

fn unusable(slot: Slot, error: &CredentialsError) {
    warn!(slot = slot.as_str(), error = %Chain(error), "A slot of the identity cannot be used");
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
