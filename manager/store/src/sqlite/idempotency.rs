//! Keys that make a repeated submit the same submit. A key belongs to its caller and is forgotten after a day.

use common::id::{CommandId, JobId};
use rusqlite::{OptionalExtension, params};

use super::codes::{int, limit, uint};
use super::writer::Tx;
use crate::error::StoreError;
use crate::limits::KEYS_KEPT;
use crate::types::{Actor, Idempotency, Millis, Submitted};

/// Answers what the first use of a key made, if it was used before.
pub(super) fn replay(
    tx: &Tx<'_>,
    actor: &Actor,
    idempotency: &Idempotency,
    now: Millis,
) -> Result<Option<Submitted>, StoreError> {
    let found = tx
        .prepare(
            "SELECT id, fingerprint, at, job, first_command, commands FROM idempotency WHERE actor = ?1 AND key = ?2",
        )?
        .query_row(params![actor.0, idempotency.key], |row| {
            Ok(Use {
                id: row.get(0)?,
                fingerprint: row.get(1)?,
                at: uint(row.get(2)?),
                job: row.get::<_, Option<i64>>(3)?.map(|job| JobId(uint(job))),
                first: uint(row.get(4)?),
                commands: uint(row.get(5)?),
            })
        })
        .optional()?;
    let Some(found) = found else { return Ok(None) };
    if found.at.saturating_add(KEYS_KEPT) <= now {
        tx.prepare("DELETE FROM idempotency WHERE id = ?1")?.execute([found.id])?;
        return Ok(None);
    }
    if found.fingerprint != idempotency.fingerprint {
        return Err(StoreError::KeyReused);
    }
    let commands = (found.first..found.first + found.commands).map(CommandId).collect();
    Ok(Some(Submitted { job: found.job, commands, replayed: true }))
}

/// The first use of a key.
struct Use {
    id: i64,
    fingerprint: [u8; 32],
    at: Millis,
    job: Option<JobId>,
    first: u64,
    commands: u64,
}

/// Remembers what the first use of a key made.
pub(super) fn remember(
    tx: &Tx<'_>,
    actor: &Actor,
    idempotency: &Idempotency,
    submitted: &Submitted,
    now: Millis,
) -> Result<(), StoreError> {
    let first = submitted.commands.first().map_or(0, |id| id.0);
    tx.prepare(
        "INSERT INTO idempotency (actor, key, fingerprint, at, job, first_command, commands)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        actor.0,
        idempotency.key,
        idempotency.fingerprint,
        int(now, "time")?,
        submitted.job.map(|job| int(job.0, "job")).transpose()?,
        int(first, "id")?,
        limit(submitted.commands.len()),
    ])?;
    Ok(())
}
