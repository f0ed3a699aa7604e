//! The one place that moves a command from one phase to the next, with its times and its event.

use common::id::{CommandId, Name, Uid};
use common::model::{Outcome, Phase, PhaseEvent};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::codes::{from_json, int, json, name, phase_code, phase_of, uid as uid_of, uint};
use super::events;
use super::writer::Tx;
use crate::error::StoreError;
use crate::limits::MAX_MOVES;
use crate::types::{Actor, Cancel, End, EndError, Millis};

/// What must be known of a command to judge news about it.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) id: CommandId,
    /// The bearer of the name: `agents.generation`.
    pub(super) agent: u64,
    pub(super) agent_name: Name,
    /// The journal of the agent's newest session.
    pub(super) journal: Option<Uid>,
    pub(super) phase: Phase,
    pub(super) cancel: Option<Cancel>,
    /// Its agent is to be told that it pauses, or goes on.
    pub(super) wished: bool,
    /// How often its agent has moved it.
    moves: i64,
    pub(super) accepted: bool,
    pub(super) end_reported: bool,
    pub(super) result_acked: bool,
}

const STANDING: &str = "SELECT c.id, c.agent, a.name, a.journal, c.phase, c.cancel, c.accepted_at IS NOT NULL,
        c.end_reported, c.result_acked, c.pause_due IS NOT NULL, c.moves
     FROM commands c JOIN agents a ON a.generation = c.agent";

/// Looks at a command by uid.
pub(super) fn by_uid(connection: &Connection, uid: &Uid) -> Result<Option<Standing>, StoreError> {
    connection
        .prepare_cached(&format!("{STANDING} WHERE c.uid = ?1"))?
        .query_row([&uid.0[..]], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

/// Looks at a command by id.
pub(super) fn by_id(connection: &Connection, id: CommandId) -> Result<Option<Standing>, StoreError> {
    connection
        .prepare_cached(&format!("{STANDING} WHERE c.id = ?1"))?
        .query_row([int(id.0, "id")?], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

/// Looks at a command that an agent speaks of: it must be one of the present bearer of that name.
pub(super) fn of_agent(connection: &Connection, uid: &Uid, agent: &Name) -> Result<Standing, StoreError> {
    let standing = by_uid(connection, uid)?.ok_or_else(|| StoreError::not_found("command", uid))?;
    let present: Option<i64> = connection
        .prepare_cached("SELECT generation FROM agents WHERE name = ?1 AND removed_at IS NULL")?
        .query_row([agent.as_str()], |row| row.get(0))
        .optional()?;
    if present.map(uint) == Some(standing.agent) { Ok(standing) } else { Err(StoreError::NotMine) }
}

fn read(row: &Row<'_>) -> Result<Standing, StoreError> {
    let agent: String = row.get(2)?;
    let journal: Option<Vec<u8>> = row.get(3)?;
    let cancel: Option<String> = row.get(5)?;
    Ok(Standing {
        id: CommandId(uint(row.get(0)?)),
        agent: uint(row.get(1)?),
        agent_name: name(&agent)?,
        journal: journal.as_deref().map(uid_of).transpose()?,
        phase: phase_of(row.get(4)?)?,
        cancel: cancel.map(|text| from_json(&text, "cancel")).transpose()?,
        accepted: row.get(6)?,
        end_reported: row.get(7)?,
        result_acked: row.get(8)?,
        wished: row.get(9)?,
        moves: row.get(10)?,
    })
}

/// Moves a command and writes what belongs to the move. `at` is when it happened, `now` when we learned of it. Answers
/// whether anything moved.
pub(super) fn advance(
    tx: &Tx<'_>,
    standing: &mut Standing,
    event: PhaseEvent,
    at: Millis,
    now: Millis,
) -> Result<bool, StoreError> {
    let moved =
        standing.phase.after(event).map_err(|source| StoreError::IllegalMove { command: standing.id, source })?;
    let Some(to) = moved else { return Ok(false) };
    let from = std::mem::replace(&mut standing.phase, to);
    let said = matches!(event, PhaseEvent::Progress(_));
    // A host whose clock is wrong cannot put its commands into the future, nor before they were made.
    let (now_int, at_int) = (int(now, "time")?, int(at.min(now), "time")?);
    let sent = (to == Phase::Dispatched).then_some(now_int);
    let journal = standing.journal.filter(|_| sent.is_some());
    // Whatever an agent does with a command, it has accepted it.
    let held = !matches!(to, Phase::Queued | Phase::Dispatched) && !to.is_final();
    let started = matches!(to, Phase::Running | Phase::Paused | Phase::Stopping);
    tx.prepare(
        "UPDATE commands SET phase = ?2, waiting = NULL,
             moves = moves + ?10, progress = CASE WHEN ?8 THEN NULL ELSE progress END, pause_due = CASE WHEN ?9 THEN NULL ELSE pause_due END,
             first_sent_at = COALESCE(first_sent_at, ?3), first_sent_journal = COALESCE(first_sent_journal, ?4),
             last_sent_at = COALESCE(?3, last_sent_at), live = CASE WHEN ?3 IS NULL THEN live ELSE 1 END,
             accepted_at = COALESCE(accepted_at, ?5), started_at = COALESCE(started_at, max(created_at, ?6)),
             finished_at = COALESCE(finished_at, max(created_at, ?7))
         WHERE id = ?1",
    )?
    .execute(params![
        int(standing.id.0, "id")?,
        phase_code(to),
        sent,
        journal.as_ref().map(|uid| &uid.0[..]),
        held.then_some(now_int),
        // A stop may come before the start; only the agent's own report of a run says when it began.
        (started && to != Phase::Stopping).then_some(at_int),
        to.is_final().then_some(at_int),
        // The place in a queue, and what does not die, mean nothing in another phase.
        matches!(from, Phase::Waiting | Phase::Stopping),
        // What stops or has ended cannot pause any more.
        to.is_final() || to == Phase::Stopping,
        said,
    ])?;
    if to == Phase::Stopping {
        // From here its grace passes: a later wish to cancel is judged by what is left.
        tx.prepare(
            "UPDATE commands SET cancel = json_set(cancel, '$.begun', ?2) WHERE id = ?1 AND cancel IS NOT NULL",
        )?
        .execute(params![int(standing.id.0, "id")?, at_int])?;
    }
    standing.moves += i64::from(said);
    standing.accepted |= held;
    if said && standing.moves > MAX_MOVES {
        tx.touch(standing.id);
        return Ok(true);
    }
    let subject = events::Subject { agent: Some(standing.agent_name.as_str()), command: Some(standing.id) };
    let body = format!(r#"{{"id":{},"phase":"{to}","from":"{from}"}}"#, standing.id);
    events::add(tx, now, &format!("command.{to}"), subject, &body)?;
    Ok(true)
}

/// Moves a command by what its agent says. A queued row that the agent knows was evidently sent: by an earlier life of
/// this store, or the record of it was lost with a backup.
pub(super) fn advance_by_agent(
    tx: &Tx<'_>,
    standing: &mut Standing,
    event: PhaseEvent,
    at: Millis,
    now: Millis,
) -> Result<bool, StoreError> {
    if standing.phase == Phase::Queued {
        advance(tx, standing, PhaseEvent::Sent, now, now)?;
    }
    advance(tx, standing, event, at, now)
}

/// Ends a command without a report of its agent.
pub(super) fn end_here(
    tx: &Tx<'_>,
    standing: &mut Standing,
    event: PhaseEvent,
    end: &End,
    now: Millis,
) -> Result<(), StoreError> {
    if advance(tx, standing, event, now, now)? {
        tx.prepare("UPDATE commands SET end = ?2, output_closed = 1, live = NULL WHERE id = ?1")?
            .execute(params![int(standing.id.0, "id")?, json(end)?])?;
    }
    Ok(())
}

/// Ends a command as interrupted, for a named reason.
pub(super) fn give_up(
    tx: &Tx<'_>,
    standing: &mut Standing,
    code: &str,
    text: &str,
    now: Millis,
) -> Result<(), StoreError> {
    let end = End { error: Some(error(code, text)), ..bare_end(Outcome::Interrupted, now) };
    end_here(tx, standing, PhaseEvent::GivenUp, &end, now)
}

/// Cancels a command that was never sent.
pub(super) fn cancel_queued(
    tx: &Tx<'_>,
    standing: &mut Standing,
    by: &Actor,
    reason: Option<&str>,
    now: Millis,
) -> Result<(), StoreError> {
    let end = End {
        cancelled_by: Some(by.0.clone()),
        cancel_reason: reason.map(str::to_owned),
        ..bare_end(Outcome::Cancelled, now)
    };
    end_here(tx, standing, PhaseEvent::CancelledHere, &end, now)
}

/// The code and text of an end.
pub(super) fn error(code: &str, text: &str) -> EndError {
    EndError { code: code.to_owned(), text: text.to_owned() }
}

/// An end of which nothing but the outcome is known.
pub(super) fn bare_end(outcome: Outcome, now: Millis) -> End {
    End {
        outcome,
        changed: false,
        exit_code: None,
        signal: None,
        core_dumped: false,
        oom: false,
        error: None,
        duration_us: None,
        cpu_us: None,
        memory_peak: None,
        io_read: None,
        io_written: None,
        tasks_peak: None,
        flags: Vec::new(),
        value: None,
        started_ms: None,
        finished_ms: Some(now),
        cancelled_by: None,
        cancel_reason: None,
        lengths_are_lower_bounds: false,
    }
}
