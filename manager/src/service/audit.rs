//! The audit for who may read it: its rows, its check, and the checkpoints that are signed of its head.

use common::error::Chain;
use site::permission::Permission;
use store::StoreError;
use store::types::{AuditPoint, AuditRow};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use super::events::MAX_PAGE;
use crate::audit::CheckpointsError;

/// Pages of the store that are looked through for one page of rows that are rare.
const LOOKS: usize = 64;

/// Which rows are wanted; empty fields want all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only rows of this actor.
    pub actor: Option<String>,
    /// Only rows of this action; with a dot at its end: of all actions that begin so.
    pub action: Option<String>,
}

/// Some rows, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// Those that are wanted.
    pub rows: Vec<AuditRow>,
    /// Everything up to this one was looked at.
    pub seen_to: u64,
    /// There may be more behind it.
    pub more: bool,
}

/// What a check of the whole audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditVerdict {
    /// Rows that hold, from the oldest on.
    pub rows: u64,
    /// The newest row.
    pub head: AuditPoint,
    /// Signed checkpoints that the rows go through.
    pub checkpoints: u64,
    /// Checkpoints of what a restored copy of the store does not hold any more.
    pub lost_to_restore: u64,
    /// The first row that is not what it was, and what is wrong.
    pub fault: Option<(u64, String)>,
    /// What checkpoints can be checked with elsewhere.
    pub public_key: Option<[u8; 32]>,
}

impl AuditFilter {
    fn wants(&self, row: &AuditRow) -> bool {
        let actor = self.actor.as_ref().is_none_or(|actor| *actor == row.actor.0);
        let action = self.action.as_ref().is_none_or(|action| match action.ends_with('.') {
            true => row.action.starts_with(action.as_str()),
            false => row.action == *action,
        });
        actor && action
    }
}

impl Service {
    /// Reads audit rows behind `after`, oldest first.
    ///
    /// # Errors
    /// When the caller may not, or the store cannot be read.
    pub async fn audit_rows(
        &self,
        caller: &Caller,
        after: u64,
        limit: usize,
        filter: &AuditFilter,
    ) -> Result<AuditPage, ServiceError> {
        self.must(caller, Permission::AuditRead, "audit.read", "audit").await?;
        let limit = limit.clamp(1, MAX_PAGE);
        let mut page = AuditPage { rows: Vec::new(), seen_to: after, more: true };
        for _ in 0..LOOKS {
            let rows = self.store().audit_rows(page.seen_to, limit).await?;
            page.more = rows.len() >= limit;
            for row in rows {
                if page.rows.len() >= limit {
                    page.more = true;
                    return Ok(page);
                }
                page.seen_to = row.seq;
                if filter.wants(&row) {
                    page.rows.push(row);
                }
            }
            if !page.more || page.rows.len() >= limit {
                break;
            }
        }
        Ok(page)
    }

    /// Checks every row of the audit, and that the chain goes through what was signed of it.
    ///
    /// # Errors
    /// When the caller may not, or the store or the checkpoints cannot be read.
    pub async fn audit_verdict(&self, caller: &Caller) -> Result<AuditVerdict, ServiceError> {
        self.must(caller, Permission::AuditRead, "audit.verify", "audit").await?;
        let public_key = self.keeper().map(|keeper| keeper.public_key());
        let (expected, forged) = match self.keeper() {
            None => Default::default(),
            Some(keeper) => match keeper.expected().await {
                Ok((expected, _)) => (expected, None),
                Err(forged @ CheckpointsError::Forged { .. }) => (Default::default(), Some(forged.to_string())),
                Err(error) => return Err(ServiceError::Checkpoints(Chain(&error).to_string())),
            },
        };
        let points = expected.rows.iter().map(|(seq, hash)| AuditPoint { seq: *seq, hash: *hash }).collect();
        let lost_to_restore = expected.restored_away as u64;
        match self.store().verify_audit_through(points).await {
            Ok(verified) => Ok(AuditVerdict {
                rows: verified.rows,
                head: verified.head,
                checkpoints: verified.points,
                lost_to_restore,
                // The rows hold among themselves; what they were compared with does not, or they are not all.
                fault: forged.map(|text| (verified.head.seq, text)).or_else(|| removed(verified.anchor)),
                public_key,
            }),
            Err(StoreError::AuditBroken { seq }) => Ok(AuditVerdict {
                rows: seq.saturating_sub(1),
                head: self.store().audit_head().await?,
                checkpoints: 0,
                lost_to_restore,
                fault: Some((seq, "it, or what stood before it, was changed, removed or cut off".to_owned())),
                public_key,
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs where the head of the audit stands, when it is time.
    ///
    /// # Errors
    /// When the store cannot be read. A checkpoint that cannot be written is tried again, and said in the log.
    pub(crate) async fn checkpoint(&self) -> Result<bool, StoreError> {
        let Some(keeper) = self.keeper() else { return Ok(false) };
        let head = self.store().audit_head().await?;
        let incarnation = self.store().identity().incarnation.0;
        match keeper.look((head.seq, head.hash), self.now(), incarnation).await {
            Ok(written) => Ok(written),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "a checkpoint of the audit could not be written");
                Ok(false)
            }
        }
    }
}

/// Rows are kept for ever: whoever removed the oldest was none of ours, however well the rest fits together.
fn removed(anchor: u64) -> Option<(u64, String)> {
    (anchor > 0).then(|| (anchor, "it, and what stood before it, was removed".to_owned()))
}
