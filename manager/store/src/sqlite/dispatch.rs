//! Commands on their way to agents: what is due, and what an agent says on the way.

use std::time::Duration;

use common::id::{CommandId, Generation, Name, Uid};
use common::model::{Outcome, Phase, PhaseEvent};
use rusqlite::params;

use super::codes::{from_json, int, json, limit as sql_limit, name as name_of, uid as uid_of, uint};
use super::database::Database;
use super::moves::{self, Standing};
use super::rows::{self, COLUMNS, Found, TABLES};
use super::writer::Tx;
use super::{agents, events, pause, rights};
use crate::error::StoreError;
use crate::limits::REFUSED_AT_ONCE;
use crate::types::{AckAnswer, Answered, Due, DueKind, End, HeldPhase, Judge, JudgeAsk, Millis, ProgressReport, Taker};

/// Who asks for what is due.
#[derive(Debug)]
struct Asking {
    agent: i64,
    epoch: i64,
    journal: Uid,
    drained: bool,
    /// What was sent at or before this time, and not answered, is sent again.
    resend_before: i64,
    now: i64,
}

/// Who says whether a command may be sent, and what it is asked beside the command.
struct Weighing<'a> {
    judge: &'a Judge,
    /// The groups of the agent.
    groups: &'a [String],
}

impl Database {
    /// Takes what is to be sent to an agent now.
    pub(crate) async fn due(&self, taker: Taker, judge: &Judge, now: Millis) -> Result<Vec<Due>, StoreError> {
        let judge = judge.clone();
        self.write(move |tx| take_due(tx, &taker, &judge, now)).await
    }

    /// Names the agents for which something may be due.
    pub(crate) async fn due_agents(&self, resend: Duration, now: Millis) -> Result<Vec<Name>, StoreError> {
        self.read(move |connection| {
            // The first part jumps from agent to agent in the index: long queues cost no more than short ones.
            let mut statement = connection.prepare_cached(
                "WITH RECURSIVE queued (agent) AS (
                     SELECT min(agent) FROM commands WHERE live = 1 AND phase = 0
                     UNION ALL
                     SELECT (SELECT min(agent) FROM commands WHERE live = 1 AND phase = 0 AND agent > queued.agent)
                     FROM queued WHERE queued.agent IS NOT NULL
                 )
                 SELECT name FROM agents WHERE removed_at IS NULL AND quarantined IS NULL AND generation IN (
                     SELECT agent FROM queued WHERE agent IS NOT NULL
                     UNION SELECT agent FROM commands
                         WHERE live = 1 AND phase = 1 AND last_sent_at <= ?1 AND not_before <= ?2 AND cancel IS NULL
                     UNION SELECT c.agent FROM commands c JOIN agents a ON a.generation = c.agent
                         WHERE c.cancel IS NOT NULL AND c.live IS NOT NULL AND c.phase BETWEEN 1 AND 6
                           AND (c.cancel_epoch <> a.epoch OR c.cancel_sent_at <= ?1)
                     UNION SELECT c.agent FROM commands c JOIN agents a ON a.generation = c.agent
                         WHERE c.pause_due IS NOT NULL AND c.live = 1 AND c.phase BETWEEN 2 AND 5
                           AND (c.pause_epoch <> a.epoch OR c.pause_sent_at <= ?1)
                 ) ORDER BY name",
            )?;
            let mut rows = statement.query(params![int(before(now, resend), "time")?, int(now, "time")?])?;
            let mut names = Vec::new();
            while let Some(row) = rows.next()? {
                let text: String = row.get(0)?;
                names.push(name_of(&text)?);
            }
            Ok(names)
        })
        .await
    }

    /// Takes an agent's answer to a Command. Nothing waits for its commit, so it may share one.
    pub(crate) async fn acked(
        &self,
        uid: &Uid,
        agent: &Name,
        answer: AckAnswer,
        now: Millis,
    ) -> Result<Answered, StoreError> {
        let (uid, agent) = (*uid, agent.clone());
        self.write_patiently(move |tx| {
            let mut standing = moves::of_agent(tx.connection(), &uid, &agent)?;
            take_answer(tx, &mut standing, answer, now)?;
            let wished = standing.wished && !standing.phase.is_final();
            Ok(Answered { command: standing.id, phase: standing.phase, wished })
        })
        .await
    }

    /// Takes an agent's word on how far a command is. Nothing waits for its commit, so it may share one.
    pub(crate) async fn progress(
        &self,
        uid: &Uid,
        agent: &Name,
        report: ProgressReport,
        now: Millis,
    ) -> Result<(CommandId, Phase), StoreError> {
        let (uid, agent) = (*uid, agent.clone());
        self.write_patiently(move |tx| {
            let mut standing = moves::of_agent(tx.connection(), &uid, &agent)?;
            take_progress(tx, &mut standing, &report, now)?;
            Ok((standing.id, standing.phase))
        })
        .await
    }
}

/// Takes what is due for an agent and records it as sent; what may not be sent any more is refused instead.
pub(super) fn take_due(tx: &Tx<'_>, taker: &Taker, judge: &Judge, now: Millis) -> Result<Vec<Due>, StoreError> {
    let row = agents::expect(tx.connection(), &taker.agent)?;
    if row.generation != taker.generation {
        return Err(StoreError::Fenced(taker.agent.clone()));
    }
    if row.quarantined.is_some() {
        return Ok(Vec::new());
    }
    let asking = Asking {
        agent: int(taker.generation.0, "generation")?,
        epoch: int(row.epoch.0, "epoch")?,
        journal: taker.journal,
        drained: row.drained,
        resend_before: int(before(now, taker.resend), "time")?,
        now: int(now, "time")?,
    };
    let mut due = cancels(tx, &asking, taker.limit, taker.generation)?;
    let room = taker.limit.saturating_sub(due.len());
    let told = pause::Told { agent: asking.agent, epoch: asking.epoch, before: asking.resend_before, now: asking.now };
    due.extend(pause::take_due(tx, &told, room, taker.generation)?);
    let room = taker.limit.saturating_sub(due.len());
    due.extend(sends(tx, &asking, room, &Weighing { judge, groups: &row.groups })?);
    Ok(due)
}

fn before(now: Millis, age: Duration) -> Millis {
    now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// Wishes that the newest session was not told of yet, or long ago.
fn cancels(tx: &Tx<'_>, asking: &Asking, limit: usize, generation: Generation) -> Result<Vec<Due>, StoreError> {
    let mut due = Vec::new();
    {
        let mut statement = tx.prepare(
            "SELECT id, uid, cancel, expires_at FROM commands INDEXED BY commands_cancel
             WHERE cancel IS NOT NULL AND live IS NOT NULL AND agent = ?1 AND phase BETWEEN 1 AND 6
               AND (cancel_epoch <> ?2 OR cancel_sent_at <= ?3)
             ORDER BY id LIMIT ?4",
        )?;
        let mut rows = statement.query(params![asking.agent, asking.epoch, asking.resend_before, sql_limit(limit)])?;
        while let Some(row) = rows.next()? {
            let (uid, wish): (Vec<u8>, String) = (row.get(1)?, row.get(2)?);
            let kind = DueKind::Cancel(from_json(&wish, "cancel")?, uint(row.get(3)?), generation);
            due.push(Due { id: CommandId(uint(row.get(0)?)), uid: uid_of(&uid)?, what: kind });
        }
    }
    for one in &due {
        tx.prepare("UPDATE commands SET cancel_epoch = ?2, cancel_sent_at = ?3 WHERE id = ?1")?.execute(params![
            int(one.id.0, "id")?,
            asking.epoch,
            asking.now
        ])?;
    }
    Ok(due)
}

/// Commands that were never sent, and those whose sending was not answered. Each is recorded as sent here (protocol
/// R-CMD-1), and none whose cancel is wished is among them (R-CMD-8).
fn sends(tx: &Tx<'_>, asking: &Asking, limit: usize, weighing: &Weighing<'_>) -> Result<Vec<Due>, StoreError> {
    let mut due: Vec<Due> = Vec::new();
    let mut refused = 0;
    loop {
        let before = refused;
        for found in sendable(tx, asking, limit.saturating_sub(due.len()))? {
            if due.iter().any(|one| one.id == found.command.id) {
                continue;
            }
            match send(tx, asking, found, weighing)? {
                Some(one) => due.push(one),
                None => refused += 1,
            }
        }
        // What was refused took the place of others. The next round of the poll goes on where this leaves a long queue.
        if refused == before || refused >= REFUSED_AT_ONCE || due.len() >= limit {
            return Ok(due);
        }
    }
}

fn sendable(tx: &Tx<'_>, asking: &Asking, limit: usize) -> Result<Vec<Found>, StoreError> {
    let mut statement = tx.prepare(&format!(
        "SELECT {COLUMNS} FROM {TABLES} WHERE c.id IN (
             SELECT id FROM commands WHERE live = 1 AND phase = 1 AND agent = ?1
                 AND last_sent_at <= ?2 AND not_before <= ?3 AND cancel IS NULL
             UNION ALL
             SELECT id FROM (
                 SELECT id FROM commands WHERE live = 1 AND phase = 0 AND agent = ?1 AND expires_at > ?3
                     AND cancel IS NULL AND NOT ?5
                 ORDER BY id LIMIT ?4)
         ) ORDER BY c.id LIMIT ?4"
    ))?;
    let mut rows =
        statement.query(params![asking.agent, asking.resend_before, asking.now, sql_limit(limit), asking.drained])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        // Nothing of a command that is on its way to its agent is stored of its streams.
        found.push(rows::read(row)?);
    }
    Ok(found)
}

/// Records a command as sent; `None` when it may not be sent any more, and is refused. What was sent once is not weighed
/// again: from then on its agent has it.
fn send(tx: &Tx<'_>, asking: &Asking, found: Found, weighing: &Weighing<'_>) -> Result<Option<Due>, StoreError> {
    let Found { mut command, authority, .. } = found;
    if command.phase == Phase::Queued {
        let mut standing =
            moves::by_id(tx.connection(), command.id)?.ok_or_else(|| StoreError::not_found("command", command.id))?;
        let ask = JudgeAsk {
            authority,
            agent: command.agent.clone(),
            groups: weighing.groups.to_vec(),
            operation: command.request.operation.clone(),
            user: command.request.user.clone(),
        };
        if !(weighing.judge)(&ask) {
            rights::refuse(tx, &mut standing, &ask, uint(asking.now))?;
            return Ok(None);
        }
        standing.journal = Some(asking.journal);
        moves::advance(tx, &mut standing, PhaseEvent::Sent, uint(asking.now), uint(asking.now))?;
        command.phase = standing.phase;
        command.first_sent_at = Some(uint(asking.now));
        command.first_sent_journal = Some(asking.journal);
    } else {
        tx.prepare("UPDATE commands SET last_sent_at = ?2 WHERE id = ?1")?
            .execute(params![int(command.id.0, "id")?, asking.now])?;
    }
    Ok(Some(Due { id: command.id, uid: command.uid, what: DueKind::Send(Box::new(command)) }))
}

fn take_answer(tx: &Tx<'_>, standing: &mut Standing, answer: AckAnswer, now: Millis) -> Result<(), StoreError> {
    // An answer to a Command says something new only while nothing more is known.
    let unanswered = matches!(standing.phase, Phase::Queued | Phase::Dispatched);
    match answer {
        AckAnswer::Accepted => {
            moves::advance_by_agent(tx, standing, PhaseEvent::Accepted, now, now)?;
        }
        AckAnswer::Duplicate(held) => take_held(tx, standing, held, now, now)?,
        AckAnswer::Deferred { until } if unanswered => {
            if standing.phase == Phase::Queued {
                moves::advance(tx, standing, PhaseEvent::Sent, now, now)?;
            }
            tx.prepare("UPDATE commands SET not_before = ?2, waiting = 'deferred' WHERE id = ?1")?
                .execute(params![int(standing.id.0, "id")?, int(until, "time")?])?;
            tx.touch(standing.id);
        }
        AckAnswer::Refused { code, text } if unanswered => {
            let end = End { error: Some(moves::error(&code, &text)), ..moves::bare_end(Outcome::Refused, now) };
            end_unaccepted(tx, standing, &end, now)?;
        }
        AckAnswer::Expired if unanswered => {
            end_unaccepted(tx, standing, &moves::bare_end(Outcome::Expired, now), now)?;
        }
        AckAnswer::Deferred { .. } | AckAnswer::Refused { .. } | AckAnswer::Expired => {}
    }
    Ok(())
}

/// Ends a command that its agent did not take.
fn end_unaccepted(tx: &Tx<'_>, standing: &mut Standing, end: &End, now: Millis) -> Result<(), StoreError> {
    if standing.phase == Phase::Queued {
        moves::advance(tx, standing, PhaseEvent::Sent, now, now)?;
    }
    moves::end_here(tx, standing, PhaseEvent::Ended(end.outcome), end, now)
}

/// Moves a command to where its agent holds it.
pub(super) fn take_held(
    tx: &Tx<'_>,
    standing: &mut Standing,
    held: HeldPhase,
    at: Millis,
    now: Millis,
) -> Result<(), StoreError> {
    moves::advance_by_agent(tx, standing, PhaseEvent::Accepted, now, now)?;
    let phase = match held {
        // The end itself comes as a result.
        HeldPhase::Accepted | HeldPhase::Ended => return Ok(()),
        HeldPhase::Waiting => Phase::Waiting,
        HeldPhase::Running => Phase::Running,
        HeldPhase::Paused => Phase::Paused,
        HeldPhase::Stopping => Phase::Stopping,
    };
    moves::advance(tx, standing, PhaseEvent::Progress(phase), at, now)?;
    Ok(())
}

fn take_progress(tx: &Tx<'_>, standing: &mut Standing, report: &ProgressReport, now: Millis) -> Result<(), StoreError> {
    take_held(tx, standing, report.phase, report.at.unwrap_or(now), now)?;
    if standing.phase.is_final() {
        return Ok(());
    }
    let progress = report.progress.as_ref().map(json).transpose()?;
    let waiting = report.waiting.as_deref().filter(|_| standing.phase == Phase::Waiting);
    // A report that says no progress means the last one still stands, except where it tells a place in a queue, or what
    // does not die: then there is none any more.
    let kept = !matches!(standing.phase, Phase::Waiting | Phase::Stopping);
    let changed = tx
        .prepare(
            "UPDATE commands SET progress = CASE WHEN ?5 THEN COALESCE(?2, progress) ELSE ?2 END, waiting = ?3,
                 isolation = COALESCE(?4, isolation)
             WHERE id = ?1 AND (CASE WHEN ?5 THEN COALESCE(?2, progress) ELSE ?2 END IS NOT progress
                 OR waiting IS NOT ?3 OR COALESCE(?4, isolation) IS NOT isolation)",
        )?
        .execute(params![int(standing.id.0, "id")?, progress, waiting, report.isolation, kept])?;
    if changed > 0 {
        tx.touch(standing.id);
    }
    Ok(())
}

/// What an event about a command is about.
pub(super) fn subject(standing: &Standing) -> events::Subject<'_> {
    events::Subject { agent: Some(standing.agent_name.as_str()), command: Some(standing.id) }
}
