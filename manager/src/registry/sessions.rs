//! The table of live sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::id::{Epoch, Name};
use store::types::Millis;

use super::handle::{Closing, SessionHandle};

/// What people want to know of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Which session of the agent it is.
    pub epoch: Epoch,
    /// Where it comes from.
    pub address: String,
    /// Since when.
    pub since: Millis,
}

/// A cheap handle on the table.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    sessions: Arc<Mutex<HashMap<Name, Entry>>>,
}

#[derive(Debug, Clone)]
struct Entry {
    handle: SessionHandle,
    since: Millis,
}

/// Somebody else took the place in the meantime: the newcomer must look again whom it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another session of the same agent came first")]
pub struct Overtaken;

impl Registry {
    /// Starts with nobody connected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a session into its place. `met` is the epoch of the session the newcomer was judged against; it is fenced
    /// and told that it was superseded.
    ///
    /// # Errors
    /// When the place is not as it was judged, or a newer epoch sits there.
    pub fn insert(
        &self,
        name: &Name,
        handle: &SessionHandle,
        met: Option<Epoch>,
        since: Millis,
    ) -> Result<(), Overtaken> {
        let mut sessions = self.lock();
        let sitting = sessions.get(name).map(|entry| entry.handle.epoch());
        // The one that was met may have left by itself; nobody else may have come.
        let as_judged = sitting.is_none() || sitting == met;
        if !as_judged || sitting.is_some_and(|sitting| sitting >= handle.epoch()) {
            return Err(Overtaken);
        }
        let entry = Entry { handle: handle.clone(), since };
        if let Some(older) = sessions.insert(name.clone(), entry) {
            older.handle.close(&Closing::superseded());
        }
        Ok(())
    }

    /// Takes a session out, unless a newer one sits in its place.
    pub fn remove(&self, name: &Name, epoch: Epoch) {
        let mut sessions = self.lock();
        if sessions.get(name).is_some_and(|entry| entry.handle.epoch() == epoch) {
            sessions.remove(name);
        }
    }

    /// The handle of an agent's session.
    #[must_use]
    pub fn handle(&self, name: &Name) -> Option<SessionHandle> {
        self.lock().get(name).map(|entry| entry.handle.clone())
    }

    /// What people want to know of an agent's session.
    #[must_use]
    pub fn session(&self, name: &Name) -> Option<SessionInfo> {
        self.lock().get(name).map(|entry| SessionInfo {
            epoch: entry.handle.epoch(),
            address: entry.handle.address().to_owned(),
            since: entry.since,
        })
    }

    /// Tells whether an agent has a session here.
    #[must_use]
    pub fn connected(&self, name: &Name) -> bool {
        self.lock().contains_key(name)
    }

    /// Counts the sessions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Counts the sessions of agents that said they trust the authorities of this hash.
    #[must_use]
    pub fn count_trusting(&self, bundle: &[u8; 32]) -> u64 {
        let trusting = self.lock().values().filter(|entry| entry.handle.trusts(bundle)).count();
        u64::try_from(trusting).unwrap_or(u64::MAX)
    }

    /// All sessions of this moment.
    #[must_use]
    pub fn all(&self) -> Vec<(Name, SessionHandle)> {
        self.lock().iter().map(|(name, entry)| (name.clone(), entry.handle.clone())).collect()
    }

    /// Ends the session of an agent.
    pub fn close(&self, name: &Name, word: &Closing) {
        if let Some(handle) = self.handle(name) {
            handle.close(word);
        }
    }

    /// Ends all sessions.
    pub fn close_all(&self, word: &Closing) {
        let handles: Vec<_> = self.lock().values().map(|entry| entry.handle.clone()).collect();
        for handle in handles {
            handle.close(word);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use common::id::{Generation, Uid};
    use common::wire::bye::Code;

    use super::*;
    use crate::registry::{Bearer, Orders};

    fn session(epoch: u64) -> (SessionHandle, Orders) {
        let bearer = Bearer {
            generation: Generation(1),
            journal: Uid([1; 16]),
            boot_id: "boot".to_owned(),
            address: format!("10.0.0.{epoch}:1"),
            spki: [1; 32],
            trusts: None,
        };
        SessionHandle::new(Epoch(epoch), bearer)
    }

    #[test]
    fn a_newer_session_fences_the_older_and_the_older_cannot_take_it_out() {
        let registry = Registry::new();
        let name: Name = "web1".parse().unwrap();
        let ((old, old_orders), (new, new_orders)) = (session(1), session(2));
        registry.insert(&name, &old, None, 0).unwrap();
        registry.insert(&name, &new, Some(Epoch(1)), 0).unwrap();
        assert_eq!(old_orders.closing.said().unwrap().refusal().code, Code::Superseded);
        assert!(!new_orders.closing.fenced());
        registry.remove(&name, Epoch(1));
        assert_eq!(registry.session(&name).unwrap().epoch, Epoch(2));
        registry.remove(&name, Epoch(2));
        assert!(!registry.connected(&name));
    }

    #[test]
    fn a_newcomer_that_was_judged_against_somebody_else_must_look_again() {
        let registry = Registry::new();
        let name: Name = "web1".parse().unwrap();
        let ((first, _a), (second, _b), (third, _c)) = (session(1), session(2), session(3));
        registry.insert(&name, &second, None, 0).unwrap();
        assert_eq!(registry.insert(&name, &first, Some(Epoch(2)), 0), Err(Overtaken), "an older epoch never wins");
        assert_eq!(registry.insert(&name, &third, None, 0), Err(Overtaken));
        assert_eq!(registry.insert(&name, &third, Some(Epoch(1)), 0), Err(Overtaken));
        assert!(!second.fenced());
        registry.remove(&name, Epoch(2));
        registry.insert(&name, &third, Some(Epoch(2)), 0).unwrap();
    }

    #[tokio::test]
    async fn the_first_last_word_stands_and_nothing_is_delivered_behind_it() {
        let (handle, mut orders) = session(1);
        handle.close(&Closing::banned("clone"));
        handle.close(&Closing::superseded());
        assert_eq!(orders.closing.heard().await.refusal().code, Code::Banned);
        assert!(handle.fenced());
        assert!(!handle.proves_alive(std::time::Duration::from_millis(1)).await);
    }
}
