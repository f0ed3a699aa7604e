//! Reads bytes and gaps at an offset, and how far streams are stored.

use bytes::Bytes;
use common::id::CommandId;
use common::model::StreamName;
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::StoreError;
use crate::sqlite::codes::{from_json, int, phase_of, stream_code, uint};
use crate::sqlite::database::Database;
use crate::sqlite::rows;
use crate::types::{Gap, OutputRead, StreamEnd};

impl Database {
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
