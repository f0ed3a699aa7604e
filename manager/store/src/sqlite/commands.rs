//! Commands as operators see them: one, many, how many, and what was reported too late.

use common::id::{CommandId, Name, Uid};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::codes::{int, limit as sql_limit, phase_code, phase_of, uint};
use super::database::Database;
use super::rows::{self, COLUMNS, TABLES};
use crate::error::StoreError;
use crate::limits::PAGE_WEIGHT;
use crate::types::{Command, CommandFilter, CommandPage, Evidence, PhaseCounts};

impl Database {
    /// Finds a command.
    pub(crate) async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError> {
        self.read(move |connection| find(connection, "c.id", Value::Integer(int(id.0, "id")?))).await
    }

    /// Finds a command by uid.
    pub(crate) async fn command_by_uid(&self, uid: &Uid) -> Result<Option<Command>, StoreError> {
        let uid = *uid;
        self.read(move |connection| find(connection, "c.uid", Value::Blob(uid.0.to_vec()))).await
    }

    /// Lists commands, newest first.
    pub(crate) async fn commands(&self, filter: CommandFilter) -> Result<CommandPage, StoreError> {
        self.read(move |connection| list(connection, &filter)).await
    }

    /// Counts the commands of every phase.
    pub(crate) async fn phase_counts(&self) -> Result<PhaseCounts, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT phase, count(*) FROM commands GROUP BY phase ORDER BY phase")?;
            let mut rows = statement.query([])?;
            let mut counts = Vec::new();
            while let Some(row) = rows.next()? {
                counts.push((phase_of(row.get(0)?)?, uint(row.get(1)?)));
            }
            Ok(counts)
        })
        .await
    }

    /// Lists late reports.
    pub(crate) async fn evidence(&self, id: CommandId) -> Result<Vec<Evidence>, StoreError> {
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT at, body FROM evidence WHERE command = ?1 ORDER BY id")?;
            let rows = statement.query_map([int(id.0, "id")?], |row| {
                Ok(Evidence { command: id, at: uint(row.get(0)?), body: row.get(1)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn find(connection: &Connection, column: &str, key: Value) -> Result<Option<Command>, StoreError> {
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM {TABLES} WHERE {column} = ?1"))?
        .query_row([key], |row| Ok(rows::read(row)))
        .optional()?
        .transpose()?;
    found.map(|found| found.complete(connection)).transpose()
}

/// Lists by the bearers that a name ever had, one index walk for each, so that a long history is never sorted.
fn list(connection: &Connection, filter: &CommandFilter) -> Result<CommandPage, StoreError> {
    // One snapshot: a row is shown as it was when it was found.
    let snapshot = connection.unchecked_transaction()?;
    let mut ids = Vec::new();
    match &filter.agent {
        Some(agent) => {
            for generation in generations(&snapshot, agent)? {
                ids.extend(matching(&snapshot, filter, Some(generation))?);
            }
            ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
            ids.truncate(filter.limit);
        }
        None => ids = matching(&snapshot, filter, None)?,
    }
    let mut page = CommandPage { commands: Vec::with_capacity(ids.len()), next: None };
    let mut weight = 0;
    let full = ids.len() >= filter.limit;
    let mut statement = snapshot.prepare_cached(&format!(
        "SELECT {COLUMNS}, COALESCE(length(c.request), length(j.request), 0) + COALESCE(length(c.end), 0)
             + COALESCE(length(c.stream_ends), 0) AS weight
         FROM {TABLES} WHERE c.id = ?1"
    ))?;
    let last = ids.last().copied();
    for id in ids {
        let (found, more) = statement.query_row([id], |row| Ok((rows::read(row), row.get::<_, i64>("weight")?)))?;
        page.commands.push(found?.complete(&snapshot)?);
        weight += uint(more);
        if full && last == Some(id) || weight >= PAGE_WEIGHT && last != Some(id) {
            page.next = Some(CommandId(uint(id)));
            break;
        }
    }
    Ok(page)
}

fn generations(connection: &Connection, name: &Name) -> Result<Vec<i64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT generation FROM agents WHERE name = ?1")?;
    let rows = statement.query_map([name.as_str()], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The ids of one page, or of one bearer's part of it.
fn matching(connection: &Connection, filter: &CommandFilter, agent: Option<i64>) -> Result<Vec<i64>, StoreError> {
    let mut conditions = String::from("1");
    let mut values = Vec::new();
    let mut add = |condition: &str, value: Value| {
        values.push(value);
        conditions.push_str(&format!(" AND {condition} ?{}", values.len()));
    };
    if let Some(agent) = agent {
        add("c.agent =", Value::Integer(agent));
    }
    if let Some(job) = filter.job {
        add("c.job =", Value::Integer(int(job.0, "job")?));
    }
    if let Some(before) = filter.before {
        add("c.id <", Value::Integer(int(before.0, "cursor")?));
    }
    if let Some(operation) = &filter.operation {
        add("c.operation =", Value::Text(operation.clone()));
    }
    if !filter.phases.is_empty() {
        // A set of bits, so that every choice of phases is the same statement.
        let set = filter.phases.iter().fold(0, |set, phase| set | 1_i64 << phase_code(*phase));
        add("0 <> (1 << c.phase) &", Value::Integer(set));
    }
    values.push(Value::Integer(sql_limit(filter.limit)));
    let limit = values.len();
    let mut statement = connection
        .prepare_cached(&format!("SELECT c.id FROM commands c WHERE {conditions} ORDER BY c.id DESC LIMIT ?{limit}"))?;
    let ids = statement.query_map(params_from_iter(values), |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}
