//! The one row about the store itself: which it is, in which life, how far it has come.

use common::id::{Incarnation, Name, StorePosition, Uid};
use rusqlite::{Connection, OptionalExtension, params};

use super::codes::{int, name, uint};
use crate::error::StoreError;
use crate::revocations::Revoked;
use crate::types::{Identity, Millis, Position};

/// What is known when the store begins to serve.
pub(super) struct Begun {
    pub(super) identity: Identity,
    pub(super) position: Position,
    /// The highest id a command ever had.
    pub(super) last_command: u64,
    /// Agents whose removal was written down outside the database and did not reach it: a crash came in between, or
    /// the database is a copy from before.
    pub(super) to_remove: Vec<Name>,
}

/// Makes or checks the row, and puts right what cannot be true at a start: no session is open, and what was revoked
/// outside the database is revoked in it.
pub(super) fn begin(connection: &Connection, revoked: &[Revoked], now: Millis) -> Result<Begun, StoreError> {
    let now_int = int(now, "time")?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let present: Option<i64> =
        connection.query_row("SELECT position FROM meta WHERE id = 1", [], |row| row.get(0)).optional()?;
    if present.is_none() {
        // A file with rows and without this one is not a new store.
        let rows: i64 = connection.query_row("SELECT count(*) FROM agents", [], |row| row.get(0))?;
        if rows != 0 {
            return Err(StoreError::corrupt("identity"));
        }
        let first = draw_incarnation(now, 0);
        connection.execute(
            "INSERT INTO meta (id, cluster, incarnation, position, audit_seq, audit_hash, anchor_seq, anchor_hash)
             VALUES (1, ?1, ?2, 0, 0, ?3, 0, ?3)",
            params![draw_cluster()?.as_str(), int(first.0, "incarnation")?, [0u8; 32]],
        )?;
        remember_incarnation(connection, first, now)?;
    }
    connection.execute(
        "UPDATE agents SET disconnected_at = ?1
         WHERE connected_at IS NOT NULL AND disconnected_at IS NULL AND removed_at IS NULL",
        [now_int],
    )?;
    let mut to_remove = Vec::new();
    for one in revoked {
        match one {
            Revoked::Token(id) => {
                connection.execute(
                    "UPDATE tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
                    params![id, now_int],
                )?;
            }
            Revoked::JoinToken(id) => {
                connection.execute(
                    "UPDATE join_tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
                    params![id, now_int],
                )?;
            }
            Revoked::Operator(generation) => {
                connection.execute(
                    "UPDATE operators SET revoked_at = ?2 WHERE generation = ?1 AND revoked_at IS NULL",
                    params![int(*generation, "generation")?, now_int],
                )?;
            }
            Revoked::Agent(generation) => {
                let present: Option<String> = connection
                    .query_row(
                        "SELECT name FROM agents WHERE generation = ?1 AND removed_at IS NULL",
                        [int(*generation, "generation")?],
                        |row| row.get(0),
                    )
                    .optional()?;
                if let Some(present) = present {
                    to_remove.push(name(&present)?);
                }
            }
        }
    }
    // The position stays: nobody has heard of these changes, and a copy that was restored must not pass what agents
    // heard of the original before they have told it.
    connection.execute_batch("COMMIT")?;
    Ok(Begun {
        identity: identity(connection)?,
        position: position(connection)?,
        last_command: counter(connection, "commands")?,
        to_remove,
    })
}

/// Reads the identity.
pub(super) fn identity(connection: &Connection) -> Result<Identity, StoreError> {
    let (cluster, incarnation): (String, i64) =
        connection.query_row("SELECT cluster, incarnation FROM meta WHERE id = 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok(Identity { cluster: name(&cluster)?, incarnation: Incarnation(uint(incarnation)) })
}

/// Reads the position.
pub(super) fn position(connection: &Connection) -> Result<Position, StoreError> {
    let position: i64 = connection.query_row("SELECT position FROM meta WHERE id = 1", [], |row| row.get(0))?;
    Ok(Position { position: StorePosition(uint(position)), last_event: counter(connection, "events")? })
}

/// Moves the position on by one commit.
pub(super) fn advance_position(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("UPDATE meta SET position = position + 1 WHERE id = 1 RETURNING position")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(uint)
}

/// The highest number that a counted table ever gave out.
pub(super) fn counter(connection: &Connection, table: &str) -> Result<u64, StoreError> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")?
        .query_row([table], |row| row.get(0))
        .optional()?;
    Ok(found.map_or(0, uint))
}

/// Writes down a life of the store.
pub(super) fn remember_incarnation(
    connection: &Connection,
    incarnation: Incarnation,
    now: Millis,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT INTO incarnations (incarnation, began_at) VALUES (?1, ?2)")?
        .execute(params![int(incarnation.0, "incarnation")?, int(now, "time")?])?;
    Ok(())
}

/// Writes down which ids of commands a life of the store skips: those above the first, up to the second.
pub(super) fn remember_skipped(
    connection: &Connection,
    incarnation: Incarnation,
    (above, to): (u64, u64),
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE incarnations SET ids_above = ?2, ids_to = ?3 WHERE incarnation = ?1")?
        .execute(params![int(incarnation.0, "incarnation")?, int(above, "id")?, int(to, "id")?])?;
    Ok(())
}

/// Tells whether an id of a command is one that this store skipped, in any of its lives.
pub(super) fn skipped(connection: &Connection, id: i64) -> Result<bool, StoreError> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT 1 FROM incarnations WHERE ids_above < ?1 AND ids_to >= ?1 LIMIT 1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

/// Tells whether this store has lived under a number.
pub(super) fn knows_incarnation(connection: &Connection, incarnation: Incarnation) -> Result<bool, StoreError> {
    let Ok(number) = i64::try_from(incarnation.0) else { return Ok(false) };
    let found: Option<i64> = connection
        .prepare_cached("SELECT incarnation FROM incarnations WHERE incarnation = ?1")?
        .query_row([number], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

/// Draws the number of a life of the store: higher than all earlier ones, and not the one that another copy of the same
/// backup draws. It stays below 2^53, so that it survives programs that know only floating point.
pub(super) fn draw_incarnation(now: Millis, before: u64) -> Incarnation {
    let random = Uid::random().0;
    let low = u64::from(random[0]) << 12 | u64::from(random[1]) << 4 | u64::from(random[2] & 0xf);
    Incarnation(((now / 1000) << 20 | low).max(before + 1))
}

fn draw_cluster() -> Result<Name, StoreError> {
    let text = Uid::random().to_string();
    name(text.get(..16).unwrap_or(&text))
}
