//! Events and audit.

use super::{Result, Store};
use crate::types::{AuditEntry, AuditPoint, AuditRow, AuditVerified, Event, EventFilter, Millis};

/// Events and audit.
impl Store {
    /// Lists events behind `after`, oldest first.
    pub async fn events(&self, after: u64, limit: usize, filter: EventFilter) -> Result<Vec<Event>> {
        self.0.events(after, limit, filter).await
    }

    /// Writes an audit row for something that changes nothing here, such as a refusal.
    pub async fn audit(&self, entry: AuditEntry, now: Millis) -> Result<()> {
        self.0.audit(entry, now).await
    }

    /// Lists audit rows behind `after`, oldest first.
    pub async fn audit_rows(&self, after: u64, limit: usize) -> Result<Vec<AuditRow>> {
        self.0.audit_rows(after, limit).await
    }

    /// Checks the chain of the audit and answers how many rows hold.
    ///
    /// # Errors
    /// `AuditBroken` with the first row that does not.
    pub async fn verify_audit(&self) -> Result<u64> {
        Ok(self.0.verify_audit(Vec::new()).await?.rows)
    }

    /// Checks the chain of the audit, and that it goes through points that were written down elsewhere: an end that was
    /// cut off, or a chain that was made anew, does not.
    ///
    /// # Errors
    /// `AuditBroken` with the first row that does not hold: behind the last point that does, where the chain itself
    /// holds.
    pub async fn verify_audit_through(&self, points: Vec<AuditPoint>) -> Result<AuditVerified> {
        self.0.verify_audit(points).await
    }

    /// Answers the newest row of the audit: its number and its hash; number 0 when there is none.
    pub async fn audit_head(&self) -> Result<AuditPoint> {
        self.0.audit_head().await
    }
}
