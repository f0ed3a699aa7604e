//! Ends that agents report, and when an agent may forget. The first end stands (protocol R-RES-5).

use common::id::{CommandId, Name, Uid};
use common::model::{Outcome, PhaseEvent};
use rusqlite::{Connection, OptionalExtension, params};

use super::codes::{from_json, int, json};
use super::database::Database;
use super::dispatch::subject;
use super::moves::{self, Standing};
use super::writer::Tx;
use super::{events, rows};
use crate::error::StoreError;
use crate::types::{Millis, Reported, ResultKind, ResultTaken, StreamEnd};

/// `commands.output_closed` when the agent has no bytes any more: what is missing is missing for ever.
pub(super) const BYTES_GONE: i64 = 2;

impl Database {
    /// Takes the end that an agent reports.
    pub(crate) async fn result(
        &self,
        uid: &Uid,
        agent: &Name,
        reported: Reported,
        now: Millis,
    ) -> Result<ResultTaken, StoreError> {
        let (uid, agent) = (*uid, agent.clone());
        self.write(move |tx| {
            let mut standing = moves::of_agent(tx.connection(), &uid, &agent)?;
            let kind = take(tx, &mut standing, &reported, now)?;
            Ok(ResultTaken { command: standing.id, phase: standing.phase, kind, acked: standing.result_acked })
        })
        .await
    }

    /// Tells whether the end and every byte are stored.
    pub(crate) async fn ready_for_ack(&self, id: CommandId) -> Result<bool, StoreError> {
        self.read(move |connection| complete(connection, id)).await
    }

    /// Records that agents were told they may forget.
    pub(crate) async fn mark_result_acked(&self, ids: Vec<CommandId>) -> Result<(), StoreError> {
        // The agent may be told a moment later; nobody else waits for it.
        self.write_patiently(move |tx| {
            for id in &ids {
                let changed = tx
                    .prepare(
                        "UPDATE commands SET result_acked = 1, live = NULL
                         WHERE id = ?1 AND end_reported = 1 AND result_acked = 0",
                    )?
                    .execute([int(id.0, "id")?])?;
                if changed > 0 {
                    tx.touch(*id);
                }
            }
            Ok(())
        })
        .await
    }
}

fn take(tx: &Tx<'_>, standing: &mut Standing, reported: &Reported, now: Millis) -> Result<ResultKind, StoreError> {
    if standing.end_reported {
        return Ok(ResultKind::Repeat);
    }
    check(reported)?;
    let ended_here = standing.phase.is_final();
    // The same end may be said twice: as the answer to a Command and as its result.
    let late = ended_here && standing.phase != reported.end.outcome.into();
    if late {
        tx.prepare("INSERT INTO evidence (command, at, body) VALUES (?1, ?2, ?3)")?.execute(params![
            int(standing.id.0, "id")?,
            int(now, "time")?,
            json(&reported.end)?
        ])?;
        let outcome = outcome_text(reported.end.outcome);
        let body = format!(r#"{{"id":{},"phase":"{}","reported":"{outcome}"}}"#, standing.id, standing.phase);
        events::add(tx, now, "command.late_result", subject(standing), &body)?;
    } else if !ended_here {
        let at = reported.end.finished_ms.unwrap_or(now);
        moves::advance_by_agent(tx, standing, PhaseEvent::Ended(reported.end.outcome), at, now)?;
    }
    // Without a byte to wait for, this commit is all that the agent's forgetting needs (protocol R-RES-2).
    standing.result_acked |= reported.streams.iter().all(|stream| stream.length == 0);
    tx.prepare(
        "UPDATE commands SET end = CASE WHEN ?2 IS NULL THEN end ELSE ?2 END, stream_ends = ?3, end_reported = 1,
             isolation = COALESCE(?4, isolation), started_at = COALESCE(started_at, max(created_at, ?5)),
             result_acked = ?6, live = CASE WHEN ?6 THEN NULL ELSE live END
         WHERE id = ?1",
    )?
    .execute(params![
        int(standing.id.0, "id")?,
        if late { None } else { Some(json(&reported.end)?) },
        json(&reported.streams)?,
        reported.isolation,
        reported.end.started_ms.map(|at| int(at.min(now), "time")).transpose()?,
        standing.result_acked,
    ])?;
    tx.touch(standing.id);
    Ok(if late { ResultKind::Late } else { ResultKind::First })
}

/// Refuses what could not be read back or compared later.
fn check(reported: &Reported) -> Result<(), StoreError> {
    for (index, stream) in reported.streams.iter().enumerate() {
        int(stream.length, "length")?;
        if reported.streams.iter().take(index).any(|before| before.name == stream.name) {
            return Err(StoreError::Conflict { what: "a result names each stream once" });
        }
    }
    Ok(())
}

fn complete(connection: &Connection, id: CommandId) -> Result<bool, StoreError> {
    let found: Option<(bool, i64, Option<String>)> = connection
        .prepare_cached("SELECT end_reported, output_closed, stream_ends FROM commands WHERE id = ?1")?
        .query_row([int(id.0, "id")?], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let (reported, closed, ends) = found.ok_or_else(|| StoreError::not_found("command", id))?;
    let Some(ends) = ends.filter(|_| reported) else { return Ok(false) };
    if closed == BYTES_GONE {
        return Ok(true);
    }
    let ends: Vec<StreamEnd> = from_json(&ends, "streams")?;
    let stored = rows::lengths(connection, id)?;
    // Longer ones than reported stand: the lengths of an interrupted command are lower bounds.
    Ok(ends.iter().all(|end| {
        let length = stored.iter().find(|(name, _)| *name == end.name).map_or(0, |(_, length)| *length);
        length >= end.length
    }))
}

fn outcome_text(outcome: Outcome) -> &'static str {
    common::model::Phase::from(outcome).as_str()
}
