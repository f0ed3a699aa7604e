//! Adds bytes and gaps to the ends of streams.
//!
//! Repeats are ignored, holes are refused, gaps that agents report are kept as gaps, up to a number. Short writes join the last row of
//! their stream, so that a program that writes by the line does not make a row for each.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use common::id::CommandId;
use common::limits;
use common::model::StreamName;
use rusqlite::{OptionalExtension, params};
use tokio::sync::oneshot;

use super::{evict, quota};
use crate::error::StoreError;
use crate::limits::MAX_GAPS;
use crate::sqlite::codes::{int, stream_code, uint};
use crate::sqlite::database::Database;
use crate::sqlite::readers::Readers;
use crate::sqlite::writer::Tx;
use crate::types::{Appended, Chunk};

/// Rows shorter than this take more bytes.
const SHORT: usize = 8 * 1024;
/// Bytes that are joined into one row at the most.
const ROW: usize = 64 * 1024;

/// Resolves when appended bytes are readable, with the new lengths of the streams in question.
#[derive(Debug)]
#[must_use = "the answer says whether the bytes were stored"]
pub struct Appending(oneshot::Receiver<Result<Vec<Appended>, StoreError>>);

impl Future for Appending {
    type Output = Result<Vec<Appended>, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(StoreError::Unavailable(None))))
    }
}

impl Database {
    /// Queues bytes.
    pub(crate) fn append_output(&self, chunks: Vec<Chunk>) -> Result<Appending, StoreError> {
        let readers = Arc::clone(&self.shared.readers);
        self.shared.output.try_run(move |tx| append(tx, &readers, &chunks)).map(Appending)
    }

    /// Makes durable what is stored.
    pub(crate) async fn sync_output(&self) -> Result<(), StoreError> {
        let known = &self.shared.known;
        if known.output_synced.load(Ordering::Acquire) >= known.output_commits.load(Ordering::Acquire) {
            return Ok(());
        }
        self.shared.output.sync().await
    }
}

/// The end of a stream while bytes are added to it.
#[derive(Debug, Default)]
struct End {
    length: u64,
    /// The row that takes short writes, 0 for none, and how much it takes.
    tail: i64,
    room: usize,
    /// Bytes up to `length` that are not written yet.
    pending: Vec<u8>,
    changed: bool,
    /// How many gaps there are; beyond [`MAX_GAPS`] the last one takes everything that follows.
    gaps: usize,
    /// Bytes in rows.
    kept: u64,
    /// How many of them may stay; 0 as long as nobody had to ask.
    quota: u64,
}

fn append(tx: &Tx<'_>, readers: &Readers, chunks: &[Chunk]) -> Result<Vec<Appended>, StoreError> {
    let mut ends: BTreeMap<(CommandId, StreamName), End> = BTreeMap::new();
    for chunk in chunks {
        let key = (chunk.command, chunk.stream);
        let end = match ends.entry(key) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(load(tx, key)?),
        };
        add(tx, readers, key, end, chunk)?;
    }
    let mut appended = Vec::with_capacity(ends.len());
    for (key, mut end) in ends {
        flush(tx, readers, key, &mut end)?;
        if end.changed {
            save(tx, key, &end)?;
            tx.touch(key.0);
        }
        appended.push(Appended { command: key.0, stream: key.1, length: end.length });
    }
    Ok(appended)
}

fn load(tx: &Tx<'_>, (command, stream): (CommandId, StreamName)) -> Result<End, StoreError> {
    let found = tx
        .prepare("SELECT length, tail, room, kept, quota FROM streams WHERE command = ?1 AND stream = ?2")?
        .query_row(params![int(command.0, "id")?, stream_code(stream)], |row| {
            Ok(End {
                length: uint(row.get(0)?),
                tail: row.get(1)?,
                room: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                kept: uint(row.get(3)?),
                quota: uint(row.get(4)?),
                ..End::default()
            })
        })
        .optional()?;
    let Some(mut end) = found else { return Ok(End::default()) };
    let gaps: i64 = tx
        .prepare("SELECT count(*) FROM gaps WHERE command = ?1 AND stream = ?2")?
        .query_row(params![int(command.0, "id")?, stream_code(stream)], |row| row.get(0))?;
    end.gaps = usize::try_from(gaps).unwrap_or(usize::MAX);
    Ok(end)
}

fn save(tx: &Tx<'_>, (command, stream): (CommandId, StreamName), end: &End) -> Result<(), StoreError> {
    tx.prepare(
        "INSERT INTO streams (command, stream, length, tail, room, kept, quota) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET length = excluded.length, tail = excluded.tail, room = excluded.room,
             kept = excluded.kept, quota = excluded.quota",
    )?
    .execute(params![
        int(command.0, "id")?,
        stream_code(stream),
        int(end.length, "length")?,
        end.tail,
        i64::try_from(end.room).unwrap_or(0),
        int(end.kept, "length")?,
        int(end.quota, "quota")?,
    ])?;
    Ok(())
}

fn add(
    tx: &Tx<'_>,
    readers: &Readers,
    key: (CommandId, StreamName),
    end: &mut End,
    chunk: &Chunk,
) -> Result<(), StoreError> {
    if chunk.offset > end.length {
        return Err(StoreError::Hole { command: chunk.command, expected: end.length });
    }
    let known = end.length - chunk.offset;
    if chunk.gap > 0 || end.gaps > MAX_GAPS {
        let length = chunk.gap.max(chunk.data.len() as u64);
        let until = chunk.offset.checked_add(length).ok_or(StoreError::OutOfRange { field: "gap" })?;
        int(until, "gap")?;
        if until > end.length {
            flush(tx, readers, key, end)?;
            let gaps = add_gap(tx, key, end, until)?;
            *end = End { length: until, changed: true, gaps, kept: end.kept, quota: end.quota, ..End::default() };
        }
        return Ok(());
    }
    // What is stored already is the same bytes: streams only grow.
    let new = usize::try_from(known).ok().and_then(|known| chunk.data.get(known..)).unwrap_or_default();
    if !new.is_empty() {
        end.pending.extend_from_slice(new);
        end.length += new.len() as u64;
        end.changed = true;
        if end.pending.len() >= ROW {
            flush(tx, readers, key, end)?;
        }
    }
    Ok(())
}

/// Writes a gap from the end of a stream up to `until`; joined to the last one where they touch. Answers how many gaps
/// there are now.
fn add_gap(
    tx: &Tx<'_>,
    (command, stream): (CommandId, StreamName),
    end: &End,
    until: u64,
) -> Result<usize, StoreError> {
    let (id, stream) = (int(command.0, "id")?, stream_code(stream));
    let (start, more) = (int(end.length, "offset")?, int(until - end.length, "gap")?);
    if end.gaps > 0 {
        let joined = tx
            .prepare(
                "UPDATE gaps SET length = length + ?4 WHERE command = ?1 AND stream = ?2 AND start + length = ?3
                     AND start = (SELECT max(start) FROM gaps WHERE command = ?1 AND stream = ?2)",
            )?
            .execute(params![id, stream, start, more])?;
        if joined > 0 {
            return Ok(end.gaps);
        }
    }
    tx.prepare("INSERT INTO gaps (command, stream, start, length) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id, stream, start, more])?;
    if end.gaps == MAX_GAPS {
        tracing::warn!(command.id = command.0, "a stream has too many gaps; the rest of it is kept as one");
    }
    Ok(end.gaps + 1)
}

/// Writes the pending bytes, and makes room where that is more than may stay.
fn flush(tx: &Tx<'_>, readers: &Readers, key: (CommandId, StreamName), end: &mut End) -> Result<(), StoreError> {
    if end.pending.is_empty() {
        return Ok(());
    }
    let bytes = std::mem::take(&mut end.pending);
    end.kept += bytes.len() as u64;
    write(tx, key, end, bytes)?;
    if end.kept <= limits::MIN_OUTPUT_QUOTA {
        // No quota is smaller: most streams never need to know theirs.
        return Ok(());
    }
    if end.quota == 0 {
        end.quota = readers.run_here(|connection| quota::of(connection, key.0))?;
    }
    if let Some(taken) = evict::beyond(tx, key, end.kept, end.quota)? {
        end.kept -= taken.bytes;
        end.gaps = taken.gaps;
        if taken.until >= end.length {
            (end.tail, end.room) = (0, 0);
        }
    }
    Ok(())
}

/// Adds bytes to the last row if they fit, else makes a new one.
fn write(
    tx: &Tx<'_>,
    (command, stream): (CommandId, StreamName),
    end: &mut End,
    bytes: Vec<u8>,
) -> Result<(), StoreError> {
    if end.tail != 0 && bytes.len() <= end.room {
        let mut joined: Vec<u8> =
            tx.prepare("SELECT data FROM chunks WHERE id = ?1")?.query_row([end.tail], |row| row.get(0))?;
        joined.extend_from_slice(&bytes);
        tx.prepare("UPDATE chunks SET data = ?2 WHERE id = ?1")?.execute(params![end.tail, joined])?;
        end.room -= bytes.len();
        return Ok(());
    }
    let start = end.length - bytes.len() as u64;
    let row = tx
        .prepare("INSERT INTO chunks (command, stream, start, data) VALUES (?1, ?2, ?3, ?4)")?
        .insert(params![int(command.0, "id")?, stream_code(stream), int(start, "offset")?, bytes])?;
    end.room = SHORT.saturating_sub(bytes.len());
    end.tail = if end.room > 0 { row } else { 0 };
    Ok(())
}
