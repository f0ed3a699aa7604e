//! Takes the oldest bytes behind the head of a stream that has more than it may keep; what they leave is one exact gap,
//! joined with the gaps that it touches or swallows (protocol R-OUT-5).
//!
//! Whole rows are taken, many at a time: a stream under its quota pays nothing, one above it pays once for some megabytes.

use common::id::CommandId;
use common::limits::output_head;
use common::model::StreamName;
use rusqlite::{OptionalExtension, params};

use crate::error::StoreError;
use crate::limits::{SLACK, SLACK_SHARE, STEP};
use crate::sqlite::codes::{int, stream_code, uint};
use crate::sqlite::writer::Tx;

/// What was taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// Bytes that are gone.
    pub(super) bytes: u64,
    /// The offset behind them.
    pub(super) until: u64,
    /// Gaps that the stream has now.
    pub(super) gaps: usize,
}

/// Takes bytes when a stream keeps more than its quota and some slack; what stays is never less than the quota.
pub(super) fn beyond(
    tx: &Tx<'_>,
    (command, stream): (CommandId, StreamName),
    kept: u64,
    quota: u64,
) -> Result<Option<Taken>, StoreError> {
    if kept <= quota.saturating_add((quota / SLACK_SHARE).clamp(SLACK.0, SLACK.1)) {
        return Ok(None);
    }
    let key = (int(command.0, "id")?, stream_code(stream));
    let Some(oldest) = oldest(tx, key, output_head(quota), (kept - quota).min(STEP))? else {
        return Ok(None);
    };
    tx.prepare("DELETE FROM chunks WHERE command = ?1 AND stream = ?2 AND start >= ?3 AND start < ?4")?
        .execute(params![key.0, key.1, int(oldest.start, "offset")?, int(oldest.until, "offset")?])?;
    let gaps = join(tx, key, oldest.start, oldest.until)?;
    Ok(Some(Taken { bytes: oldest.bytes, until: oldest.until, gaps }))
}

/// Rows that follow each other, with the gaps between them.
struct Rows {
    start: u64,
    until: u64,
    bytes: u64,
}

/// Finds the oldest rows that begin behind the head and are no more than so many bytes together.
fn oldest(tx: &Tx<'_>, (command, stream): (i64, i64), head: u64, most: u64) -> Result<Option<Rows>, StoreError> {
    let mut statement = tx.prepare(
        "SELECT start, length(data) FROM chunks WHERE command = ?1 AND stream = ?2 AND start >= ?3 ORDER BY start",
    )?;
    let mut found = statement.query(params![command, stream, int(head, "head")?])?;
    let mut rows: Option<Rows> = None;
    while let Some(row) = found.next()? {
        let (start, length) = (uint(row.get(0)?), uint(row.get(1)?));
        let taken = rows.get_or_insert(Rows { start, until: start, bytes: 0 });
        if taken.bytes + length > most {
            break;
        }
        taken.bytes += length;
        taken.until = start + length;
    }
    Ok(rows.filter(|rows| rows.bytes > 0))
}

/// Writes one gap over everything from `start` to `until`, with the gaps in it and at its ends. Answers how many there are.
fn join(tx: &Tx<'_>, (command, stream): (i64, i64), start: u64, until: u64) -> Result<usize, StoreError> {
    let neighbour = |sql: &str, at: u64| -> Result<Option<(u64, u64)>, StoreError> {
        Ok(tx
            .prepare(sql)?
            .query_row(params![command, stream, int(at, "offset")?], |row| {
                Ok((uint(row.get(0)?), uint(row.get(0)?) + uint(row.get(1)?)))
            })
            .optional()?)
    };
    let before = neighbour(
        "SELECT start, length FROM gaps WHERE command = ?1 AND stream = ?2 AND start < ?3 ORDER BY start DESC LIMIT 1",
        start,
    )?;
    let last = neighbour(
        "SELECT start, length FROM gaps WHERE command = ?1 AND stream = ?2 AND start <= ?3 ORDER BY start DESC LIMIT 1",
        until,
    )?;
    let start = before.filter(|(_, end)| *end >= start).map_or(start, |(first, _)| first);
    let until = last.map_or(until, |(_, end)| end.max(until));
    tx.prepare("DELETE FROM gaps WHERE command = ?1 AND stream = ?2 AND start >= ?3 AND start < ?4")?
        .execute(params![command, stream, int(start, "offset")?, int(until, "offset")?])?;
    tx.prepare("INSERT INTO gaps (command, stream, start, length) VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        command,
        stream,
        int(start, "offset")?,
        int(until - start, "gap")?
    ])?;
    let gaps: i64 = tx
        .prepare("SELECT count(*) FROM gaps WHERE command = ?1 AND stream = ?2")?
        .query_row(params![command, stream], |row| row.get(0))?;
    Ok(usize::try_from(gaps).unwrap_or(usize::MAX))
}
