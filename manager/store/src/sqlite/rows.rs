//! Rows of commands as records, with what the output file knows of their streams.

use common::id::{CommandId, Generation, JobId};
use common::model::StreamName;
use rusqlite::{Connection, Row};

use super::codes::{from_json, int, name, phase_of, stream_code, stream_of, uid, uint};
use super::rights;
use crate::error::StoreError;
use crate::types::{Actor, Authority, Command, Gap, Stream, StreamEnd};

/// What [`read`] expects, from the tables as [`TABLES`] names them.
pub(super) const COLUMNS: &str = "c.id, c.uid, a.name, c.agent, c.job, c.attempt, COALESCE(c.request, j.request),
     c.phase, c.waiting, c.created_at, c.created_by, c.expires_at, c.first_sent_at, c.first_sent_journal, c.accepted_at,
     c.started_at, c.finished_at, c.progress, c.cancel, c.end, c.isolation, c.result_acked, c.output_closed,
     c.end_reported, c.stream_ends, c.pause, c.authority";

/// Where the columns come from.
pub(super) const TABLES: &str = "commands c JOIN agents a ON a.generation = c.agent LEFT JOIN jobs j ON j.id = c.job";

/// A command, and what is needed to complete its streams.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) command: Command,
    /// By which right it was submitted.
    pub(super) authority: Option<Authority>,
    /// No more bytes will come.
    closed: bool,
    /// The agent has reported the end.
    reported: bool,
    ends: Vec<StreamEnd>,
}

/// Reads a row of [`COLUMNS`]; the streams are still empty.
pub(super) fn read(row: &Row<'_>) -> Result<Found, StoreError> {
    let optional_time = |index: usize| row.get::<_, Option<i64>>(index).map(|at| at.map(uint));
    let optional_text = |index: usize| row.get::<_, Option<String>>(index);
    let uid_bytes: Vec<u8> = row.get(1)?;
    let agent: String = row.get(2)?;
    let request: Option<String> = row.get(6)?;
    let journal: Option<Vec<u8>> = row.get(13)?;
    let result_acked: bool = row.get(21)?;
    let output_closed: bool = row.get(22)?;
    let command = Command {
        id: CommandId(uint(row.get(0)?)),
        uid: uid(&uid_bytes)?,
        agent: name(&agent)?,
        generation: Generation(uint(row.get(3)?)),
        job: row.get::<_, Option<i64>>(4)?.map(|job| JobId(uint(job))),
        attempt: row.get(5)?,
        request: from_json(request.as_deref().unwrap_or_default(), "request")?,
        phase: phase_of(row.get(7)?)?,
        waiting: optional_text(8)?,
        created_at: uint(row.get(9)?),
        created_by: Actor(row.get(10)?),
        expires_at: uint(row.get(11)?),
        first_sent_at: optional_time(12)?,
        first_sent_journal: journal.as_deref().map(uid).transpose()?,
        accepted_at: optional_time(14)?,
        started_at: optional_time(15)?,
        finished_at: optional_time(16)?,
        progress: optional_text(17)?.map(|text| from_json(&text, "progress")).transpose()?,
        cancel: optional_text(18)?.map(|text| from_json(&text, "cancel")).transpose()?,
        pause: optional_text(25)?.map(|text| from_json(&text, "pause")).transpose()?,
        end: optional_text(19)?.map(|text| from_json(&text, "end")).transpose()?,
        isolation: optional_text(20)?,
        result_acked,
        streams: Vec::new(),
    };
    let ends = optional_text(24)?.map(|text| from_json(&text, "streams")).transpose()?.unwrap_or_default();
    Ok(Found {
        command,
        authority: rights::authority(row.get(26)?)?,
        closed: output_closed || result_acked,
        reported: row.get(23)?,
        ends,
    })
}

impl Found {
    /// Adds the streams; `connection` reads both files.
    pub(super) fn complete(mut self, connection: &Connection) -> Result<Command, StoreError> {
        let stored = lengths(connection, self.command.id)?;
        for stream in StreamName::ALL {
            let length = stored.iter().find(|(name, _)| *name == stream).map(|(_, length)| *length);
            let end = self.ends.iter().find(|end| end.name == stream);
            // The two that every command has are always named.
            if stream == StreamName::Steps && length.is_none() && end.is_none() {
                continue;
            }
            let gaps = length.map_or(Ok(Vec::new()), |length| gaps(connection, self.command.id, stream, length))?;
            let joined = self.join(stream, length.unwrap_or(0), end.map(|end| end.length), gaps);
            self.command.streams.push(joined);
        }
        Ok(self.command)
    }

    fn join(&self, name: StreamName, length: u64, final_length: Option<u64>, mut gaps: Vec<Gap>) -> Stream {
        let ended = self.command.phase.is_final();
        // A stream that the end does not name has no bytes; longer ones than a lower bound stand as they are.
        let final_length = match final_length {
            Some(named) => Some(named.max(length)),
            None => (ended && (self.reported || self.closed)).then_some(length),
        };
        let missing = final_length.unwrap_or(length).saturating_sub(length);
        if self.closed && ended && missing > 0 {
            gaps.push(Gap { offset: length, length: missing });
            return Stream { name, length: length + missing, final_length, end: true, gaps };
        }
        Stream { name, length, final_length, end: ended && (self.closed || (self.reported && missing == 0)), gaps }
    }
}

/// The streams of a command of which no byte is stored.
pub(super) fn fresh_streams() -> Vec<Stream> {
    [StreamName::Stdout, StreamName::Stderr]
        .map(|name| Stream { name, length: 0, final_length: None, end: false, gaps: Vec::new() })
        .into()
}

/// How far the streams of a command are stored.
pub(super) fn lengths(connection: &Connection, id: CommandId) -> Result<Vec<(StreamName, u64)>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT stream, length FROM output.streams WHERE command = ?1 ORDER BY stream")?;
    let mut rows = statement.query([int(id.0, "id")?])?;
    let mut lengths = Vec::new();
    while let Some(row) = rows.next()? {
        lengths.push((stream_of(row.get(0)?)?, uint(row.get(1)?)));
    }
    Ok(lengths)
}

/// The stored gaps of a stream below its length, those that touch made one. The length was read a moment before: gaps may
/// have come behind it since.
fn gaps(connection: &Connection, id: CommandId, stream: StreamName, length: u64) -> Result<Vec<Gap>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT start, min(length, ?3 - start) FROM output.gaps
         WHERE command = ?1 AND stream = ?2 AND start < ?3 ORDER BY start",
    )?;
    let mut rows = statement.query([int(id.0, "id")?, stream_code(stream), int(length, "length")?])?;
    let mut gaps: Vec<Gap> = Vec::new();
    while let Some(row) = rows.next()? {
        let gap = Gap { offset: uint(row.get(0)?), length: uint(row.get(1)?) };
        match gaps.last_mut() {
            Some(last) if last.offset + last.length == gap.offset => last.length += gap.length,
            _ => gaps.push(gap),
        }
    }
    Ok(gaps)
}
