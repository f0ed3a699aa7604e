//! Bytes of commands: appended by offset, read by offset, never changed.
//!
//! Repeats are ignored, holes are refused, gaps that agents report are kept as gaps, up to a number. Short writes join the last row of
//! their stream, so that a program that writes by the line does not make a row for each.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use common::id::CommandId;
use common::model::StreamName;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::codes::{from_json, int, phase_of, stream_code, uint};
use super::database::Database;
use super::rows;
use super::writer::Tx;
use crate::error::StoreError;
use crate::types::{Appended, Chunk, Gap, OutputRead, StreamEnd};

/// Rows shorter than this take more bytes.
const SHORT: usize = 8 * 1024;
/// Bytes that are joined into one row at the most.
const ROW: usize = 64 * 1024;
/// Gaps that are kept of one stream; the rest of a stream with more is one gap. An honest agent cuts at a quota and
/// loses a segment now and then; a row for every other byte would only fill the disk.
const MAX_GAPS: usize = 1_000;

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
        self.shared.output.try_run(move |tx| append(tx, &chunks)).map(Appending)
    }

    /// Makes durable what is stored.
    pub(crate) async fn sync_output(&self) -> Result<(), StoreError> {
        let known = &self.shared.known;
        if known.output_synced.load(Ordering::Acquire) >= known.output_commits.load(Ordering::Acquire) {
            return Ok(());
        }
        self.shared.output.sync().await
    }

    /// Answers how far the streams of a command are stored.
    pub(crate) async fn stored_lengths(&self, id: CommandId) -> Result<Vec<(StreamName, u64)>, StoreError> {
        self.read(move |connection| rows::lengths(connection, id)).await
    }

    /// Reads at an offset.
    pub(crate) async fn read_output(
        &self,
        id: CommandId,
        stream: StreamName,
        offset: u64,
        max: usize,
    ) -> Result<OutputRead, StoreError> {
        self.read(move |connection| read(connection, id, stream, offset, max)).await
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
}

fn append(tx: &Tx<'_>, chunks: &[Chunk]) -> Result<Vec<Appended>, StoreError> {
    let mut ends: BTreeMap<(CommandId, StreamName), End> = BTreeMap::new();
    for chunk in chunks {
        let key = (chunk.command, chunk.stream);
        let end = match ends.entry(key) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(load(tx, key)?),
        };
        add(tx, key, end, chunk)?;
    }
    let mut appended = Vec::with_capacity(ends.len());
    for (key, mut end) in ends {
        flush(tx, key, &mut end)?;
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
        .prepare("SELECT length, tail, room FROM streams WHERE command = ?1 AND stream = ?2")?
        .query_row(params![int(command.0, "id")?, stream_code(stream)], |row| {
            Ok(End {
                length: uint(row.get(0)?),
                tail: row.get(1)?,
                room: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
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
        "INSERT INTO streams (command, stream, length, tail, room) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET length = excluded.length, tail = excluded.tail, room = excluded.room",
    )?
    .execute(params![
        int(command.0, "id")?,
        stream_code(stream),
        int(end.length, "length")?,
        end.tail,
        i64::try_from(end.room).unwrap_or(0),
    ])?;
    Ok(())
}

fn add(tx: &Tx<'_>, key: (CommandId, StreamName), end: &mut End, chunk: &Chunk) -> Result<(), StoreError> {
    if chunk.offset > end.length {
        return Err(StoreError::Hole { command: chunk.command, expected: end.length });
    }
    let known = end.length - chunk.offset;
    if chunk.gap > 0 || end.gaps > MAX_GAPS {
        let length = chunk.gap.max(chunk.data.len() as u64);
        let until = chunk.offset.checked_add(length).ok_or(StoreError::OutOfRange { field: "gap" })?;
        int(until, "gap")?;
        if until > end.length {
            flush(tx, key, end)?;
            let gaps = add_gap(tx, key, end, until)?;
            *end = End { length: until, changed: true, gaps, ..End::default() };
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
            flush(tx, key, end)?;
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

/// Writes the pending bytes: into the last row if they fit, else into a new one.
fn flush(tx: &Tx<'_>, (command, stream): (CommandId, StreamName), end: &mut End) -> Result<(), StoreError> {
    if end.pending.is_empty() {
        return Ok(());
    }
    let bytes = std::mem::take(&mut end.pending);
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

fn read(
    connection: &Connection,
    id: CommandId,
    stream: StreamName,
    offset: u64,
    max: usize,
) -> Result<OutputRead, StoreError> {
    let length =
        rows::lengths(connection, id)?.into_iter().find(|(name, _)| *name == stream).map_or(0, |(_, length)| length);
    if offset >= length {
        return lost_end(connection, id, stream, offset);
    }
    if max == 0 {
        return Ok(OutputRead::Nothing);
    }
    let bytes = read_bytes(connection, id, stream, offset, max)?;
    if !bytes.is_empty() {
        return Ok(OutputRead::Bytes(bytes));
    }
    read_gap(connection, id, stream, offset)
}

/// The bytes from an offset to the next gap, the end, or the limit; empty inside a gap.
fn read_bytes(
    connection: &Connection,
    id: CommandId,
    stream: StreamName,
    offset: u64,
    max: usize,
) -> Result<Bytes, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT start, data FROM output.chunks WHERE command = ?1 AND stream = ?2
             AND start >= COALESCE((SELECT max(start) FROM output.chunks
                 WHERE command = ?1 AND stream = ?2 AND start <= ?3), ?3)
         ORDER BY start",
    )?;
    let mut found = statement.query(params![int(id.0, "id")?, stream_code(stream), int(offset, "offset")?])?;
    let mut bytes: Vec<u8> = Vec::new();
    while bytes.len() < max
        && let Some(row) = found.next()?
    {
        let start = uint(row.get(0)?);
        let data = row.get_ref(1)?.as_blob().map_err(|_| StoreError::corrupt("output"))?;
        let wanted = offset + bytes.len() as u64;
        let Some(skip) = wanted.checked_sub(start).and_then(|skip| usize::try_from(skip).ok()) else { break };
        let Some(rest) = data.get(skip..).filter(|rest| !rest.is_empty()) else { break };
        let take = rest.len().min(max - bytes.len());
        bytes.extend_from_slice(rest.get(..take).unwrap_or(rest));
    }
    Ok(bytes.into())
}

/// The rest of the gap at an offset, with those that touch it.
fn read_gap(connection: &Connection, id: CommandId, stream: StreamName, offset: u64) -> Result<OutputRead, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT start, length FROM output.gaps WHERE command = ?1 AND stream = ?2 AND start + length > ?3
         ORDER BY start",
    )?;
    let mut found = statement.query(params![int(id.0, "id")?, stream_code(stream), int(offset, "offset")?])?;
    let mut until = offset;
    while let Some(row) = found.next()? {
        let (start, length) = (uint(row.get(0)?), uint(row.get(1)?));
        if start > until {
            break;
        }
        until = start + length;
    }
    if until == offset {
        // Neither bytes nor a gap below the stored length: the file is not what we wrote.
        return Err(StoreError::corrupt("output"));
    }
    Ok(OutputRead::Gap(Gap { offset, length: until - offset }))
}

/// The missing end of a stream that nobody has any more, as a gap.
fn lost_end(connection: &Connection, id: CommandId, stream: StreamName, offset: u64) -> Result<OutputRead, StoreError> {
    let found: Option<(i64, Option<String>)> = connection
        .prepare_cached(
            "SELECT phase, stream_ends FROM commands WHERE id = ?1 AND (output_closed <> 0 OR result_acked <> 0)",
        )?
        .query_row([int(id.0, "id")?], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((phase, Some(ends))) = found else { return Ok(OutputRead::Nothing) };
    let ends: Vec<StreamEnd> = from_json(&ends, "streams")?;
    let until = ends.iter().find(|end| end.name == stream).map_or(0, |end| end.length);
    if phase_of(phase)?.is_final() && until > offset {
        return Ok(OutputRead::Gap(Gap { offset, length: until - offset }));
    }
    Ok(OutputRead::Nothing)
}

/// Removes all bytes of these commands.
pub(super) fn forget(tx: &Tx<'_>, commands: &[CommandId]) -> Result<(), StoreError> {
    for command in commands {
        let id = int(command.0, "id")?;
        tx.prepare("DELETE FROM streams WHERE command = ?1")?.execute([id])?;
        tx.prepare("DELETE FROM chunks WHERE command = ?1")?.execute([id])?;
        tx.prepare("DELETE FROM gaps WHERE command = ?1")?.execute([id])?;
    }
    Ok(())
}

/// Removes bytes of commands that the main file has never heard of: it was restored without this one, and their ids
/// will be given to others.
pub(super) fn forget_beyond(connection: &Connection, last: u64) -> Result<(), StoreError> {
    let last = int(last, "id")?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute("DELETE FROM streams WHERE command > ?1", [last])?;
    connection.execute("DELETE FROM chunks WHERE command > ?1", [last])?;
    connection.execute("DELETE FROM gaps WHERE command > ?1", [last])?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}
