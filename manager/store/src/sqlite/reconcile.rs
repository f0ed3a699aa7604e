//! What an agent holds, compared with what is known here, on every connect.

use std::collections::HashSet;
use std::sync::Arc;

use common::id::{CommandId, Generation, Name, Uid};
use rusqlite::{Connection, params};

use super::agents;
use super::codes::{FIRST_FINAL, int, uid as uid_of, uint};
use super::database::Database;
use super::dispatch::take_held;
use super::moves;
use super::results::BYTES_GONE;
use super::rows;
use super::writer::Tx;
use crate::error::StoreError;
use crate::types::{Held, HeldPhase, Millis, Verdict};

/// Everything of one bearer that is sent and looked after; the phases are listed so that the index serves it.
const SENT: &str = "live = 1 AND phase IN (1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15, 16) AND agent = ?1";

impl Database {
    /// Judges one page.
    pub(crate) async fn reconcile_page(
        &self,
        agent: &Name,
        generation: Generation,
        journal: Uid,
        page: Vec<Held>,
        now: Millis,
    ) -> Result<Vec<(Uid, Verdict)>, StoreError> {
        if page.is_empty() {
            return Ok(Vec::new());
        }
        let agent = agent.clone();
        let verdicts = self
            .write(move |tx| {
                expect_generation(tx.connection(), &agent, generation)?;
                page.iter().map(|held| Ok((held.uid, judge(tx, held, generation, journal, now)?))).collect()
            })
            .await?;
        self.read(move |connection| with_offsets(connection, verdicts)).await
    }

    /// Ends an inventory.
    pub(crate) async fn reconcile_finish(
        &self,
        agent: &Name,
        generation: Generation,
        journal: Uid,
        listed: HashSet<Uid>,
        now: Millis,
    ) -> Result<Vec<CommandId>, StoreError> {
        let agent = agent.clone();
        let listed = Arc::new(listed);
        // Thousands of agents that connect at once with nothing missing must not queue for the writer.
        let (name, seen) = (agent.clone(), Arc::clone(&listed));
        let missing = self
            .read(move |connection| {
                expect_generation(connection, &name, generation)?;
                unlisted(connection, generation, &seen)
            })
            .await?;
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        self.write(move |tx| {
            expect_generation(tx.connection(), &agent, generation)?;
            let mut ended = Vec::new();
            for row in unlisted(tx.connection(), generation, &listed)? {
                if settle(tx, &row, journal, now)? {
                    ended.push(row.id);
                }
            }
            Ok(ended)
        })
        .await
    }
}

fn expect_generation(connection: &Connection, agent: &Name, generation: Generation) -> Result<(), StoreError> {
    let row = agents::expect(connection, agent)?;
    if row.generation == generation { Ok(()) } else { Err(StoreError::Fenced(agent.clone())) }
}

/// Judges one thing that an agent holds. The offsets of `Continue` are still empty.
fn judge(tx: &Tx<'_>, held: &Held, generation: Generation, journal: Uid, now: Millis) -> Result<Verdict, StoreError> {
    // What is left of a command need not say for whom it was made; then only a row that is known here tells.
    let unsaid = held.tombstone && held.generation.0 == 0;
    if held.generation != generation && !unsaid {
        return Ok(Verdict::NotMine);
    }
    let Some(mut standing) = moves::by_uid(tx.connection(), &held.uid)? else {
        return Ok(if unsaid { Verdict::NotMine } else { Verdict::Describe });
    };
    if standing.agent != generation.0 {
        return Ok(Verdict::NotMine);
    }
    let ended = held.phase == HeldPhase::Ended;
    if standing.result_acked && ended {
        return Ok(Verdict::Forget);
    }
    standing.journal = Some(journal);
    if !standing.phase.is_final() {
        take_held(tx, &mut standing, held.phase, held.started_ms.unwrap_or(now), now)?;
    }
    if held.tombstone {
        // Only the end is left there: what is not stored here is gone, and nobody waits for it.
        tx.prepare("UPDATE commands SET output_closed = ?2 WHERE id = ?1")?
            .execute(params![int(standing.id.0, "id")?, BYTES_GONE])?;
        tx.touch(standing.id);
    }
    let cancel = standing.cancel.filter(|_| !ended);
    Ok(Verdict::Continue { command: standing.id, from: Vec::new(), cancel })
}

fn with_offsets(connection: &Connection, mut verdicts: Vec<(Uid, Verdict)>) -> Result<Vec<(Uid, Verdict)>, StoreError> {
    for (_, verdict) in &mut verdicts {
        if let Verdict::Continue { command, from, .. } = verdict {
            *from = rows::lengths(connection, *command)?;
        }
    }
    Ok(verdicts)
}

/// A command that should be on its agent and is not.
struct Missing {
    id: CommandId,
    ended: bool,
    accepted: bool,
    journal: Option<Uid>,
}

fn unlisted(
    connection: &Connection,
    generation: Generation,
    listed: &HashSet<Uid>,
) -> Result<Vec<Missing>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, uid, phase, accepted_at IS NOT NULL, first_sent_journal
         FROM commands INDEXED BY commands_live WHERE live IS NOT NULL AND {SENT} ORDER BY id"
    ))?;
    let mut all = statement.query([int(generation.0, "generation")?])?;
    let mut missing = Vec::new();
    while let Some(row) = all.next()? {
        let (uid, journal): (Vec<u8>, Option<Vec<u8>>) = (row.get(1)?, row.get(4)?);
        if !listed.contains(&uid_of(&uid)?) {
            missing.push(Missing {
                id: CommandId(uint(row.get(0)?)),
                ended: row.get::<_, i64>(2)? >= FIRST_FINAL,
                accepted: row.get(3)?,
                journal: journal.as_deref().map(uid_of).transpose()?,
            });
        }
    }
    Ok(missing)
}

/// Decides what becomes of a command that its agent does not hold (protocol R-INV-5); answers whether it ended.
fn settle(tx: &Tx<'_>, missing: &Missing, journal: Uid, now: Millis) -> Result<bool, StoreError> {
    let id = int(missing.id.0, "id")?;
    if missing.ended {
        // The end is known, and whatever bytes are not here are nowhere.
        tx.prepare("UPDATE commands SET output_closed = ?2, live = NULL WHERE id = ?1")?
            .execute(params![id, BYTES_GONE])?;
        tx.touch(missing.id);
        return Ok(false);
    }
    let other_journal = missing.journal.is_some_and(|sent_to| sent_to != journal);
    if !other_journal && !missing.accepted {
        // It was recorded as sent and never arrived: it, or the wish to cancel it, is due at once.
        tx.prepare(
            "UPDATE commands SET last_sent_at = 0, not_before = 0, cancel_epoch = 0, cancel_sent_at = 0 WHERE id = ?1",
        )?
        .execute([id])?;
        return Ok(false);
    }
    let Some(mut standing) = moves::by_id(tx.connection(), missing.id)? else { return Ok(false) };
    let (code, text) = if other_journal {
        ("journal_lost", "the agent's memory is another one than the command was sent to")
    } else {
        ("record_lost", "the agent had accepted the command and no longer knows it")
    };
    moves::give_up(tx, &mut standing, code, text, now)?;
    Ok(true)
}
