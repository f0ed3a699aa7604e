//! The audit: who did what, each row chained to the one before by its hash, in the transaction of the change.
//!
//! The head (number and hash of the last row) stands in the row about the store, so that rows missing at the end are
//! noticed; the anchor is the last row that retention removed, so that the rest can still be checked.

use rusqlite::{Connection, Row, params};

use super::codes::{int, limit as sql_limit, uint};
use super::database::Database;
use super::writer::Tx;
use crate::error::StoreError;
use crate::types::{Actor, AuditEntry, AuditOutcome, AuditPoint, AuditRow, AuditVerified, Millis};

/// Adds a row about something that was done.
pub(super) fn done(
    tx: &Tx<'_>,
    actor: &Actor,
    action: &str,
    object: &str,
    details: &str,
    now: Millis,
) -> Result<(), StoreError> {
    let entry = AuditEntry {
        actor: actor.clone(),
        action: action.to_owned(),
        object: object.to_owned(),
        outcome: AuditOutcome::Done,
        details: details.to_owned(),
    };
    add(tx, &entry, now)
}

/// Adds a row.
pub(super) fn add(tx: &Tx<'_>, entry: &AuditEntry, now: Millis) -> Result<(), StoreError> {
    let (seq, before) = head(tx.connection())?;
    let mut row = AuditRow {
        seq: seq + 1,
        at: now,
        actor: entry.actor.clone(),
        action: entry.action.clone(),
        object: entry.object.clone(),
        outcome: outcome_text(entry.outcome).to_owned(),
        details: entry.details.clone(),
        hash: [0; 32],
    };
    row.hash = hash(&before, &row);
    tx.prepare(
        "INSERT INTO audit (seq, at, actor, action, object, outcome, details, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        int(row.seq, "number")?,
        int(now, "time")?,
        row.actor.0,
        row.action,
        row.object,
        row.outcome,
        row.details,
        row.hash,
    ])?;
    tx.prepare("UPDATE meta SET audit_seq = ?1, audit_hash = ?2 WHERE id = 1")?
        .execute(params![int(row.seq, "number")?, row.hash])?;
    Ok(())
}

impl Database {
    /// Writes a row that belongs to no change.
    pub(crate) async fn audit(&self, entry: AuditEntry, now: Millis) -> Result<(), StoreError> {
        self.write(move |tx| add(tx, &entry, now)).await
    }

    /// Lists rows behind `after`.
    pub(crate) async fn audit_rows(&self, after: u64, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
        self.read(move |connection| list(connection, after, limit)).await
    }

    /// Checks the chain, and that it goes through these points.
    pub(crate) async fn verify_audit(&self, mut points: Vec<AuditPoint>) -> Result<AuditVerified, StoreError> {
        points.sort_by_key(|point| point.seq);
        self.read(move |connection| {
            // One snapshot: rows that are added meanwhile are not half seen.
            let snapshot = connection.unchecked_transaction()?;
            verify(&snapshot, &points)
        })
        .await
    }

    /// Answers the newest row.
    pub(crate) async fn audit_head(&self) -> Result<AuditPoint, StoreError> {
        self.read(|connection| head(connection).map(|(seq, hash)| AuditPoint { seq, hash })).await
    }
}

fn head(connection: &Connection) -> Result<(u64, [u8; 32]), StoreError> {
    let head = connection
        .prepare_cached("SELECT audit_seq, audit_hash FROM meta WHERE id = 1")?
        .query_row([], |row| Ok((uint(row.get(0)?), row.get(1)?)))?;
    Ok(head)
}

fn list(connection: &Connection, after: u64, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, at, actor, action, object, outcome, details, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let rows = statement.query_map(params![int(after, "cursor")?, sql_limit(limit)], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// `points` are in order.
fn verify(connection: &Connection, points: &[AuditPoint]) -> Result<AuditVerified, StoreError> {
    let (anchor, mut before): (u64, [u8; 32]) =
        connection.query_row("SELECT anchor_seq, anchor_hash FROM meta WHERE id = 1", [], |row| {
            Ok((uint(row.get(0)?), row.get(1)?))
        })?;
    let mut passage =
        Passage { points: points.iter().filter(|point| point.seq >= anchor).peekable(), passed: 0, good: anchor };
    passage.at(anchor, &before)?;
    let mut last = anchor;
    let mut statement = connection
        .prepare_cached("SELECT seq, at, actor, action, object, outcome, details, hash FROM audit ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // A field of another type than we wrote is a change like any other.
        let row = read(row).map_err(|_| StoreError::AuditBroken { seq: last + 1 })?;
        if row.seq != last + 1 || row.hash != hash(&before, &row) {
            return Err(StoreError::AuditBroken { seq: last + 1 });
        }
        before = row.hash;
        last = row.seq;
        passage.at(last, &before)?;
    }
    // A point behind the end: the end was cut off.
    if head(connection)? != (last, before) || passage.points.peek().is_some() {
        return Err(StoreError::AuditBroken { seq: last + 1 });
    }
    let head = AuditPoint { seq: last, hash: before };
    Ok(AuditVerified { anchor, rows: last - anchor, head, points: passage.passed })
}

/// The way of the chain through points that are known from elsewhere.
struct Passage<'a, I: Iterator<Item = &'a AuditPoint>> {
    points: std::iter::Peekable<I>,
    passed: u64,
    /// The last row that is known from elsewhere to be as it was.
    good: u64,
}

impl<'a, I: Iterator<Item = &'a AuditPoint>> Passage<'a, I> {
    /// Takes a step. A chain that is whole and misses a point was made anew somewhere behind the last one it went through.
    fn at(&mut self, seq: u64, hash: &[u8; 32]) -> Result<(), StoreError> {
        while let Some(point) = self.points.next_if(|point| point.seq == seq) {
            if point.hash != *hash {
                return Err(StoreError::AuditBroken { seq: self.good + 1 });
            }
            self.passed += 1;
            self.good = seq;
        }
        Ok(())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        seq: uint(row.get(0)?),
        at: uint(row.get(1)?),
        actor: Actor(row.get(2)?),
        action: row.get(3)?,
        object: row.get(4)?,
        outcome: row.get(5)?,
        details: row.get(6)?,
        hash: row.get(7)?,
    })
}

fn outcome_text(outcome: AuditOutcome) -> &'static str {
    match outcome {
        AuditOutcome::Done => "done",
        AuditOutcome::Refused => "refused",
    }
}

/// Hash of a row: the hash before it, its numbers, and each text behind its length, so that no two rows say the same.
fn hash(before: &[u8; 32], row: &AuditRow) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(&row.seq.to_le_bytes());
    hasher.update(&row.at.to_le_bytes());
    for text in [&row.actor.0, &row.action, &row.object, &row.outcome, &row.details] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}
