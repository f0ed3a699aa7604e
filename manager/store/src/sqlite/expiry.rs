//! What the manager ends by itself as time passes: commands that were never sent, and those of agents that are gone for
//! long enough (protocol R-CMD-9).

use std::time::Duration;

use common::id::CommandId;
use common::limits::TOMBSTONE_GRACE;
use common::model::{Outcome, Phase, PhaseEvent};
use rusqlite::{Connection, Params};

use super::codes::{int, uint};
use super::database::Database;
use super::moves;
use crate::error::StoreError;
use crate::limits::EXPIRED_AT_ONCE;
use crate::types::Millis;

impl Database {
    /// Ends queued commands whose validity has passed.
    pub(crate) async fn expire_queued(&self, now: Millis) -> Result<usize, StoreError> {
        let now_int = int(now, "time")?;
        let mut ended = 0;
        loop {
            let found = self
                .read(move |connection| {
                    ids(
                        connection,
                        "SELECT id FROM commands
                         WHERE live IN (1, 2) AND phase = 0 AND expires_at <= ?1 LIMIT ?2",
                        [now_int, EXPIRED_AT_ONCE],
                    )
                })
                .await?;
            if found.is_empty() {
                return Ok(ended);
            }
            ended += self
                .write(move |tx| {
                    let mut ended = 0;
                    for id in found {
                        let standing = moves::by_id(tx.connection(), id)?;
                        // It may have been sent since it was found; then its agent judges it.
                        if let Some(mut standing) = standing.filter(|standing| standing.phase == Phase::Queued) {
                            let end = moves::bare_end(Outcome::Expired, now);
                            moves::end_here(tx, &mut standing, PhaseEvent::ExpiredHere, &end, now)?;
                            ended += 1;
                        }
                    }
                    Ok(ended)
                })
                .await?;
        }
    }

    /// Ends sent commands of agents that are gone for good.
    pub(crate) async fn give_up_lost(&self, now: Millis, lost_after: Duration) -> Result<Vec<CommandId>, StoreError> {
        let now_int = int(now, "time")?;
        let heard_before = int(back(now, lost_after), "time")?;
        let expired_before = int(back(now, TOMBSTONE_GRACE), "time")?;
        let mut ended = Vec::new();
        loop {
            let query = move |connection: &Connection| {
                ids(
                    connection,
                    "SELECT c.id FROM commands c JOIN agents a ON a.generation = c.agent
                     WHERE c.live = 1 AND c.phase IN (1, 2, 3, 4, 5, 6) AND c.expires_at <= ?1
                       AND (a.connected_at IS NULL OR a.disconnected_at IS NOT NULL)
                       AND COALESCE(a.disconnected_at, a.created_at) <= ?2
                     ORDER BY c.id LIMIT ?3",
                    [expired_before, heard_before, EXPIRED_AT_ONCE],
                )
            };
            if self.read(query).await?.is_empty() {
                return Ok(ended);
            }
            let batch = self
                .write(move |tx| {
                    // Asked again inside the change: the agent may have come back.
                    let found = query(tx.connection())?;
                    for id in &found {
                        if let Some(mut standing) = moves::by_id(tx.connection(), *id)? {
                            let text = "the agent did not come back";
                            moves::give_up(tx, &mut standing, "agent_lost", text, uint(now_int))?;
                        }
                    }
                    Ok(found)
                })
                .await?;
            ended.extend(batch);
        }
    }
}

fn back(now: Millis, age: Duration) -> Millis {
    now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

fn ids(connection: &Connection, sql: &str, parameters: impl Params) -> Result<Vec<CommandId>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(parameters, |row| Ok(CommandId(uint(row.get(0)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
