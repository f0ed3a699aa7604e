//! Events and audit rows, in the order of their commits.

use store::types::{AuditRow, Event, EventFilter, Scope};
use tokio::sync::watch;

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;

/// Rows in one page.
pub const MAX_PAGE: usize = 1_000;

impl Service {
    /// Reads events behind `after`, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events(
        &self,
        caller: &Caller,
        after: u64,
        limit: usize,
        filter: EventFilter,
    ) -> Result<Vec<Event>, ServiceError> {
        caller.may(Scope::Read)?;
        Ok(self.store().events(after, limit.clamp(1, MAX_PAGE), filter).await?)
    }

    /// The number of the newest event; changes wake its watchers.
    #[must_use]
    pub fn events_changed(&self) -> watch::Receiver<u64> {
        self.store().events_changed()
    }

    /// Reads audit rows behind `after`, oldest first.
    ///
    /// # Errors
    /// When the caller may not, or the store cannot be read.
    pub async fn audit_rows(&self, caller: &Caller, after: u64, limit: usize) -> Result<Vec<AuditRow>, ServiceError> {
        let checked = caller.may(Scope::Admin);
        if let Err(refusal) = checked {
            self.note_refusal(caller, "audit.read", "audit", &refusal).await;
            return Err(refusal);
        }
        Ok(self.store().audit_rows(after, limit.clamp(1, MAX_PAGE)).await?)
    }
}
