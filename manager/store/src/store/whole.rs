//! Opening, closing, and what is true of the whole store.

use std::path::Path;

use common::id::{CommandId, Generation, Incarnation, Name, StorePosition};
use tokio::sync::watch;

use super::Result;
use crate::sqlite::Database;
use crate::types::{Identity, Millis, Position, Pruned, Retention};
use crate::watch::CommandWatch;

/// The manager's memory. Clones share one.
#[derive(Debug, Clone)]
pub struct Store(pub(super) Database);

/// Opening, closing, and what is true of the whole store.
impl Store {
    /// Opens the store of a folder, or makes it. The caller makes sure that no other process has it open.
    ///
    /// Sessions that a crash left open are recorded as ended now.
    ///
    /// # Errors
    /// Also when a newer release wrote it, or when what is stored cannot be read.
    pub async fn open(folder: &Path) -> Result<Self> {
        Database::open(folder).await.map(Self)
    }

    /// Answers which store this is, in which life.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.0.identity()
    }

    /// Answers how far it has come; grows with every committed change.
    #[must_use]
    pub fn position(&self) -> Position {
        self.0.position()
    }

    /// Wakes when events were committed; the value is the number of the last one.
    #[must_use]
    pub fn events_changed(&self) -> watch::Receiver<u64> {
        self.0.events_changed()
    }

    /// Wakes when the row or the output of a command changed.
    #[must_use]
    pub fn watch_command(&self, command: CommandId) -> CommandWatch {
        self.0.watch_command(command)
    }

    /// Tells whether an agent has heard more of this store than the store remembers: then it was restored from an older
    /// copy. To be asked with the agent's hello, before [`Store::agent_connected`].
    pub async fn is_behind(
        &self,
        generation: Generation,
        incarnation: Incarnation,
        heard: StorePosition,
    ) -> Result<bool> {
        self.0.is_behind(generation, incarnation, heard).await
    }

    /// Begins a new life of the store after it was found to be older than what an agent heard: a new incarnation, all
    /// counters jump, queued commands wait until they are released. The audit names the agent that claimed it.
    pub async fn declare_restored(&self, claimant: &Name, heard: StorePosition, now: Millis) -> Result<Identity> {
        self.0.declare_restored(claimant, heard, now).await
    }

    /// Removes what is older than its retention, a bounded number of rows at a time.
    pub async fn prune(&self, retention: Retention, now: Millis) -> Result<Pruned> {
        self.0.prune(retention, now).await
    }

    /// Writes a copy that can be opened as a store into a folder, which is made and must hold no other copy.
    pub async fn backup(&self, folder: &Path) -> Result<()> {
        self.0.backup(folder).await
    }

    /// Ends the writers after everything that waits. Later calls fail as unavailable.
    pub async fn close(&self) {
        self.0.close().await;
    }
}
