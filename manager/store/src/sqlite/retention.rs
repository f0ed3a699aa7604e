//! Removes what is older than its retention, in changes that are short enough for submits to pass between them.

use std::time::Duration;

use common::id::CommandId;
use rusqlite::{Connection, OptionalExtension, params};

use super::codes::{FIRST_FINAL, int, uint};
use super::database::Database;
use super::writer::Tx;
use super::{output, site};
use crate::error::StoreError;
use crate::limits::{ENDED_KEPT, KEYS_KEPT, PRUNED_AT_ONCE};
use crate::types::{Millis, Pruned, Retention};

/// How much longer an end is kept that its agent has not delivered in full: the agent may still come back.
const UNDELIVERED: Millis = 30 * 24 * 3600 * 1000;

impl Database {
    /// Removes what is older than its retention.
    pub(crate) async fn prune(&self, retention: Retention, now: Millis) -> Result<Pruned, StoreError> {
        let mut pruned =
            Pruned { commands: self.prune_commands(before(now, retention.commands)).await?, ..Pruned::default() };
        let events_before = before(now, retention.events);
        pruned.events = self.in_steps(move |tx| prune_in_order(tx, "events", "seq", events_before)).await?;
        let keys_before = now.saturating_sub(KEYS_KEPT);
        pruned.keys = self.in_steps(move |tx| prune_in_order(tx, "idempotency", "id", keys_before)).await?;
        if let Some(kept) = retention.audit {
            let audit_before = before(now, kept);
            pruned.audit = self.in_steps(move |tx| prune_audit(tx, audit_before)).await?;
        }
        let agents_before = before(now, retention.commands);
        pruned.agents = self.write(move |tx| prune_agents(tx, agents_before)).await?;
        let ended_before = now.saturating_sub(ENDED_KEPT);
        pruned.join_tokens = self.write(move |tx| prune_join_tokens(tx, ended_before)).await?;
        pruned.operators = self.write(move |tx| prune_operators(tx, ended_before)).await?;
        self.in_steps(site::prune_blobs).await?;
        Ok(pruned)
    }

    /// Repeats a step until it removes less than it may.
    async fn in_steps(
        &self,
        step: impl Fn(&Tx<'_>) -> Result<usize, StoreError> + Clone + Send + 'static,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let some = self.write(step.clone()).await?;
            removed += some;
            if some < usize::try_from(PRUNED_AT_ONCE).unwrap_or(usize::MAX) {
                return Ok(removed);
            }
        }
    }

    /// Walks the commands from the oldest on, as far as any can be old enough.
    async fn prune_commands(&self, cutoff: Millis) -> Result<usize, StoreError> {
        let mut removed = 0;
        let mut after = 0;
        loop {
            let page = self.read(move |connection| old_commands(connection, after, cutoff)).await?;
            after = page.last;
            let ids = page.old;
            if !ids.is_empty() {
                // Bytes first: a crash in between leaves commands without bytes, which the next round removes, and
                // never bytes without a command.
                let bytes = ids.clone();
                self.shared.output.run(move |tx| output::forget(tx, &bytes)).await?;
                removed += ids.len();
                self.write(move |tx| forget(tx, &ids)).await?;
            }
            if page.done {
                return Ok(removed);
            }
        }
    }
}

fn before(now: Millis, age: Duration) -> Millis {
    now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

struct Page {
    old: Vec<CommandId>,
    last: i64,
    done: bool,
}

fn old_commands(connection: &Connection, after: i64, cutoff: Millis) -> Result<Page, StoreError> {
    let cutoff_int = int(cutoff, "time")?;
    let undelivered = int(cutoff.saturating_sub(UNDELIVERED), "time")?;
    let mut statement = connection.prepare_cached(
        "SELECT id, created_at, phase, COALESCE(finished_at, 0), live IS NULL FROM commands
         WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after, PRUNED_AT_ONCE])?;
    let mut page = Page { old: Vec::new(), last: after, done: true };
    let (mut seen, mut young) = (0, 0);
    while let Some(row) = rows.next()? {
        let (id, created, phase, finished): (i64, i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        seen += 1;
        page.last = id;
        if created >= cutoff_int {
            // Ids follow time, but clocks are set back and history is imported: one young row says nothing of the
            // next. A whole page of them does.
            young += 1;
            continue;
        }
        let limit = if row.get(4)? { cutoff_int } else { undelivered };
        if phase >= FIRST_FINAL && finished < limit {
            page.old.push(CommandId(uint(id)));
        }
    }
    page.done = seen < PRUNED_AT_ONCE || young == seen;
    Ok(page)
}

fn forget(tx: &Tx<'_>, ids: &[CommandId]) -> Result<(), StoreError> {
    for id in ids {
        let id = int(id.0, "id")?;
        let job: Option<i64> = tx
            .prepare("DELETE FROM commands WHERE id = ?1 RETURNING job")?
            .query_row([id], |row| row.get(0))
            .optional()?
            .flatten();
        tx.prepare("DELETE FROM evidence WHERE command = ?1")?.execute([id])?;
        if let Some(job) = job {
            tx.prepare("DELETE FROM jobs WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM commands WHERE job = ?1)")?
                .execute([job])?;
        }
    }
    Ok(())
}

/// Removes the oldest rows of a table whose keys follow time.
fn prune_in_order(tx: &Tx<'_>, table: &str, key: &str, cutoff: Millis) -> Result<usize, StoreError> {
    let last = last_before(tx, table, key, cutoff)?;
    let removed = tx.prepare(&format!("DELETE FROM {table} WHERE {key} <= ?1"))?.execute([last])?;
    Ok(removed)
}

/// The last of the oldest rows that are all older than the cutoff.
fn last_before(tx: &Tx<'_>, table: &str, key: &str, cutoff: Millis) -> Result<i64, StoreError> {
    let cutoff = int(cutoff, "time")?;
    let mut statement = tx.prepare(&format!("SELECT {key}, at FROM {table} ORDER BY {key} LIMIT ?1"))?;
    let mut rows = statement.query([PRUNED_AT_ONCE])?;
    let mut last = 0;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? >= cutoff {
            break;
        }
        last = row.get(0)?;
    }
    Ok(last)
}

/// Removes old audit rows; the chain of the rest begins at the last removed one.
fn prune_audit(tx: &Tx<'_>, cutoff: Millis) -> Result<usize, StoreError> {
    let last = last_before(tx, "audit", "seq", cutoff)?;
    let hash: Option<[u8; 32]> =
        tx.prepare("SELECT hash FROM audit WHERE seq = ?1")?.query_row([last], |row| row.get(0)).optional()?;
    let Some(hash) = hash else { return Ok(0) };
    tx.prepare("UPDATE meta SET anchor_seq = ?1, anchor_hash = ?2 WHERE id = 1")?.execute(params![last, hash])?;
    Ok(tx.prepare("DELETE FROM audit WHERE seq <= ?1")?.execute([last])?)
}

/// Removes former agents that no command points at any more.
fn prune_agents(tx: &Tx<'_>, cutoff: Millis) -> Result<usize, StoreError> {
    let removed = tx
        .prepare(
            "DELETE FROM agents WHERE removed_at < ?1
                 AND NOT EXISTS (SELECT 1 FROM commands WHERE commands.agent = agents.generation)",
        )?
        .execute([int(cutoff, "time")?])?;
    Ok(removed)
}

/// Removes join tokens that ended long ago, with the record of who used them: agents keep the id of their token.
fn prune_join_tokens(tx: &Tx<'_>, cutoff: Millis) -> Result<usize, StoreError> {
    let cutoff = int(cutoff, "time")?;
    let removed = tx
        .prepare("DELETE FROM join_tokens WHERE min(expires_at, COALESCE(revoked_at, expires_at)) < ?1")?
        .execute([cutoff])?;
    if removed > 0 {
        tx.prepare("DELETE FROM joins WHERE token NOT IN (SELECT id FROM join_tokens)")?.execute([])?;
    }
    Ok(removed)
}

/// Removes certificates of operators that expired long ago. Revoked ones stay until then: they could still be shown.
fn prune_operators(tx: &Tx<'_>, cutoff: Millis) -> Result<usize, StoreError> {
    Ok(tx.prepare("DELETE FROM operators WHERE not_after < ?1")?.execute([int(cutoff, "time")?])?)
}
