//! The wish that a command pauses or goes on: recorded here, told to the agent until it answers.
//!
//! ```text
//! wish ─► pause_due ─► due (once a session, again after a while) ─► the agent's answer ─► done, refused or dropped
//!              └──────► a stop is wished, or the command stops or ends: dropped
//! ```

use common::id::{CommandId, Generation, Name, Uid};
use common::model::Phase;
use rusqlite::{OptionalExtension, params};

use super::codes::{from_json, int, json, limit as sql_limit, uid as uid_of, uint};
use super::database::Database;
use super::dispatch::subject;
use super::moves::{self, Standing};
use super::writer::Tx;
use super::{audit, events};
use crate::error::StoreError;
use crate::types::{Actor, Due, DueKind, Millis, Pause, PauseAnswer, PauseHeard};

/// Which session asks what it is to tell.
pub(super) struct Told {
    pub(super) agent: i64,
    pub(super) epoch: i64,
    /// What was told at or before this time, and not answered, is told again.
    pub(super) before: i64,
    pub(super) now: i64,
}

impl Database {
    /// Records the wish that a command pauses, or goes on.
    pub(crate) async fn pause(
        &self,
        id: CommandId,
        paused: bool,
        actor: &Actor,
        now: Millis,
    ) -> Result<PauseAnswer, StoreError> {
        let actor = actor.clone();
        self.write(move |tx| {
            let standing = moves::by_id(tx.connection(), id)?.ok_or_else(|| StoreError::not_found("command", id))?;
            wish(tx, &standing, paused, &actor, now)
        })
        .await
    }

    /// Takes an agent's answer to a wish. An answer to an older wish than the newest changes nothing.
    pub(crate) async fn pause_heard(
        &self,
        uid: &Uid,
        agent: &Name,
        number: u64,
        heard: PauseHeard,
        now: Millis,
    ) -> Result<(), StoreError> {
        let (uid, agent) = (*uid, agent.clone());
        self.write_patiently(move |tx| {
            let standing = moves::of_agent(tx.connection(), &uid, &agent)?;
            take_answer(tx, &standing, number, heard, now)
        })
        .await
    }
}

fn wish(tx: &Tx<'_>, standing: &Standing, paused: bool, actor: &Actor, now: Millis) -> Result<PauseAnswer, StoreError> {
    match standing.phase {
        Phase::Queued => return Ok(PauseAnswer::NotStarted),
        phase if phase.is_final() => return Ok(PauseAnswer::Final(phase)),
        Phase::Stopping => return Ok(PauseAnswer::Stopping),
        _ if standing.cancel.is_some() => return Ok(PauseAnswer::Stopping),
        _ => {}
    }
    let id = int(standing.id.0, "id")?;
    let (last, newest) = known(tx, id)?;
    if is_done(last.as_ref(), paused, standing.phase) {
        return Ok(PauseAnswer::Already);
    }
    // Counted in time: an agent that heard wishes which a restored store has forgotten still takes later ones for later.
    let number = now.max(newest.saturating_add(1));
    let wish = Pause { wish: number, paused, by: actor.clone(), at: now, pending: true, refused: None };
    tx.prepare(
        "UPDATE commands SET pause = ?2, pause_wish = ?3, pause_due = 1, pause_epoch = 0, pause_sent_at = 0
         WHERE id = ?1",
    )?
    .execute(params![id, json(&wish)?, int(number, "wish")?])?;
    let (action, kind) = match paused {
        true => ("command.pause", "command.pause_pending"),
        false => ("command.resume", "command.resume_pending"),
    };
    let details = format!(r#"{{"id":{},"phase":"{}"}}"#, standing.id, standing.phase);
    audit::done(tx, actor, action, &standing.id.to_string(), &details, now)?;
    events::add(tx, now, kind, subject(standing), &details)?;
    tx.touch(standing.id);
    Ok(PauseAnswer::Wished)
}

/// Tells whether a wish would add nothing to what is wished or done.
fn is_done(last: Option<&Pause>, paused: bool, phase: Phase) -> bool {
    match last {
        Some(last) if last.refused.is_some() => !paused && phase != Phase::Paused,
        Some(last) => last.paused == paused,
        // A command that nobody here paused may be paused all the same: this store may be a restored copy.
        None => !paused && phase != Phase::Paused,
    }
}

/// The wish that stands, and the number of the newest that ever did.
fn known(tx: &Tx<'_>, id: i64) -> Result<(Option<Pause>, u64), StoreError> {
    let found: Option<(Option<String>, i64)> = tx
        .prepare("SELECT pause, pause_wish FROM commands WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (text, newest) = found.unwrap_or_default();
    Ok((text.map(|text| from_json(&text, "pause")).transpose()?, uint(newest)))
}

/// Wishes that a session was not told of yet, or long ago. A command that was sent and not accepted comes later: its
/// agent may hear the wish before the Command.
pub(super) fn take_due(tx: &Tx<'_>, told: &Told, limit: usize, generation: Generation) -> Result<Vec<Due>, StoreError> {
    let mut due = Vec::new();
    {
        let mut statement = tx.prepare(
            "SELECT id, uid, pause FROM commands INDEXED BY commands_pause
             WHERE pause_due IS NOT NULL AND agent = ?1 AND live = 1 AND phase BETWEEN 2 AND 5
               AND (pause_epoch <> ?2 OR pause_sent_at <= ?3)
             ORDER BY id LIMIT ?4",
        )?;
        let mut rows = statement.query(params![told.agent, told.epoch, told.before, sql_limit(limit)])?;
        while let Some(row) = rows.next()? {
            let (uid, wish): (Vec<u8>, String) = (row.get(1)?, row.get(2)?);
            let what = DueKind::Pause(from_json(&wish, "pause")?, generation);
            due.push(Due { id: CommandId(uint(row.get(0)?)), uid: uid_of(&uid)?, what });
        }
    }
    for one in &due {
        tx.prepare("UPDATE commands SET pause_epoch = ?2, pause_sent_at = ?3 WHERE id = ?1")?.execute(params![
            int(one.id.0, "id")?,
            told.epoch,
            told.now
        ])?;
    }
    Ok(due)
}

fn take_answer(
    tx: &Tx<'_>,
    standing: &Standing,
    number: u64,
    heard: PauseHeard,
    now: Millis,
) -> Result<(), StoreError> {
    let id = int(standing.id.0, "id")?;
    let (Some(mut last), _) = known(tx, id)? else { return Ok(()) };
    if last.wish != number || !last.pending {
        return Ok(());
    }
    last.pending = false;
    let code = match heard {
        PauseHeard::Taken => None,
        PauseHeard::Unknown => Some("unknown".to_owned()),
        PauseHeard::Refused(code) => Some(code),
    };
    if let Some(code) = &code {
        let body = serde_json::json!({ "id": standing.id.0, "paused": last.paused, "code": code }).to_string();
        events::add(tx, now, "command.pause_refused", subject(standing), &body)?;
    }
    // Of a wish that the command goes on nothing is left once it does, and nothing of one that came too late.
    let gone = match code.as_deref() {
        None => !last.paused,
        Some(code) => code == "unknown",
    };
    last.refused = code;
    let kept = if gone { None } else { Some(json(&last)?) };
    tx.prepare("UPDATE commands SET pause = ?2, pause_due = NULL WHERE id = ?1")?.execute(params![id, kept])?;
    tx.touch(standing.id);
    Ok(())
}
