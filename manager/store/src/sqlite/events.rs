//! Events: one row for each change, in the transaction of the change, numbered in commit order by the one writer.

use common::id::{CommandId, Name};
use rusqlite::{Connection, Row, params};

use super::codes::{int, limit as sql_limit, name, uint};
use super::database::Database;
use super::writer::Tx;
use crate::error::StoreError;
use crate::types::{Event, EventFilter, Millis};

/// What an event is about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Subject<'a> {
    pub(super) agent: Option<&'a str>,
    pub(super) command: Option<CommandId>,
}

/// Adds an event. `body` is JSON text.
pub(super) fn add(tx: &Tx<'_>, now: Millis, kind: &str, subject: Subject<'_>, body: &str) -> Result<(), StoreError> {
    let command = subject.command.map(|id| int(id.0, "id")).transpose()?;
    let seq = tx
        .prepare("INSERT INTO events (at, kind, agent, command, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .insert(params![int(now, "time")?, kind, subject.agent, command, body])?;
    tx.announce(uint(seq));
    if let Some(command) = subject.command {
        tx.touch(command);
    }
    Ok(())
}

impl Database {
    /// Lists events behind `after`.
    pub(crate) async fn events(&self, after: u64, limit: usize, filter: EventFilter) -> Result<Vec<Event>, StoreError> {
        self.read(move |connection| list(connection, after, limit, &filter)).await
    }
}

fn list(connection: &Connection, after: u64, limit: usize, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, at, kind, agent, command, body FROM events
         WHERE seq > ?1
           AND (?2 IS NULL OR agent = ?2)
           AND (?3 IS NULL OR command = ?3)
           AND (?4 IS NULL OR substr(kind, 1, length(?4)) = ?4)
         ORDER BY seq LIMIT ?5",
    )?;
    let mut rows = statement.query(params![
        int(after, "cursor")?,
        filter.agent.as_ref().map(Name::as_str),
        filter.command.map(|id| int(id.0, "id")).transpose()?,
        filter.kind_prefix,
        sql_limit(limit),
    ])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(read(row)?);
    }
    Ok(events)
}

fn read(row: &Row<'_>) -> Result<Event, StoreError> {
    let agent: Option<String> = row.get(3)?;
    let command: Option<i64> = row.get(4)?;
    Ok(Event {
        seq: uint(row.get(0)?),
        at: uint(row.get(1)?),
        kind: row.get(2)?,
        agent: agent.as_deref().map(name).transpose()?,
        command: command.map(|id| CommandId(uint(id))),
        body: row.get(5)?,
    })
}
