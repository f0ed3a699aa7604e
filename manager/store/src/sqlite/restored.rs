//! A store that was restored from an older copy: its new life, the release of what waits since, and the import of what
//! only agents know.

use common::id::{CommandId, Generation, Incarnation, Name, StorePosition, Uid};
use common::model::{Phase, PhaseEvent};
use rusqlite::{OptionalExtension, params};

use super::codes::{int, json, phase_code, uint};
use super::database::Database;
use super::dispatch::{subject, take_held};
use super::moves;
use super::writer::Tx;
use super::{agents, audit, events, joins, meta};
use crate::error::StoreError;
use crate::types::{Actor, Identity, Import, Millis};

/// How far counters jump: more than was given out between any backup and its restoration.
const JUMP: u64 = 1_000_000;
/// How far one claim may push the position: more commits than a store makes in its whole life. A higher claim only says
/// that the store is another one than the agent heard; its number is not used.
const FARTHEST: u64 = 1 << 40;

impl Database {
    /// Tells whether an agent has heard more of this store than it remembers itself.
    ///
    /// What was heard before this process opened the store cannot be more than the store knew then. Compared with the
    /// present position alone, a restored copy would look like the original as soon as it had made as many changes.
    pub(crate) async fn is_behind(
        &self,
        generation: Generation,
        incarnation: Incarnation,
        heard: StorePosition,
    ) -> Result<bool, StoreError> {
        if heard > self.shared.known.could_hear(generation) {
            return Ok(true);
        }
        // 0: it has never heard of any.
        if incarnation.0 == 0 || incarnation == self.identity().incarnation {
            return Ok(false);
        }
        self.read(move |connection| Ok(!meta::knows_incarnation(connection, incarnation)?)).await
    }

    /// Begins a new life of the store.
    pub(crate) async fn declare_restored(
        &self,
        claimant: &Name,
        heard: StorePosition,
        now: Millis,
    ) -> Result<Identity, StoreError> {
        let claimant = claimant.clone();
        self.write(move |tx| restore(tx, &claimant, heard, now)).await
    }

    /// Lets a command go that waits since the restoration.
    pub(crate) async fn release_restored(&self, id: CommandId, actor: &Actor, now: Millis) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.write(move |tx| {
            let standing = moves::by_id(tx.connection(), id)?.ok_or_else(|| StoreError::not_found("command", id))?;
            let released = tx
                .prepare("UPDATE commands SET live = 1, waiting = NULL WHERE id = ?1 AND live = 2 AND phase = 0")?
                .execute([int(id.0, "id")?])?;
            if released == 0 {
                return Err(StoreError::Conflict { what: "the command does not wait for a release" });
            }
            events::add(tx, now, "command.released", subject(&standing), &format!(r#"{{"id":{id}}}"#))?;
            audit::done(tx, &actor, "command.release", &id.to_string(), "{}", now)
        })
        .await
    }

    /// Takes in a command that only its agent knew.
    pub(crate) async fn import(&self, import: Import, now: Millis) -> Result<CommandId, StoreError> {
        self.write(move |tx| take_in(tx, &import, now)).await
    }
}

fn restore(tx: &Tx<'_>, claimant: &Name, heard: StorePosition, now: Millis) -> Result<Identity, StoreError> {
    let before = meta::identity(tx.connection())?;
    let ours = meta::position(tx.connection())?.position.0;
    // Clamped, never refused: a position that somebody once claimed must not lock out those who heard it honestly.
    let reached = heard.0.clamp(ours, ours.saturating_add(FARTHEST));
    let identity = Identity { incarnation: meta::draw_incarnation(now, before.incarnation.0), cluster: before.cluster };
    tx.prepare("UPDATE meta SET incarnation = ?1, position = ?2 WHERE id = 1")?.execute(params![
        int(identity.incarnation.0, "incarnation")?,
        int(reached.saturating_add(JUMP), "position")?
    ])?;
    meta::remember_incarnation(tx.connection(), identity.incarnation, now)?;
    let last = meta::counter(tx.connection(), "commands")?;
    meta::remember_skipped(tx.connection(), identity.incarnation, (last, last + JUMP))?;
    for table in ["agents", "commands", "jobs", "events", "operators", "site_revisions"] {
        let next = int(meta::counter(tx.connection(), table)? + JUMP, "counter")?;
        let known = tx.prepare("UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1")?.execute(params![table, next])?;
        if known == 0 {
            tx.prepare("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)")?.execute(params![table, next])?;
        }
    }
    tx.prepare(
        "UPDATE agents SET epoch = epoch + ?1, disconnected_at = COALESCE(disconnected_at, ?2)
         WHERE removed_at IS NULL",
    )?
    .execute(params![int(JUMP, "jump")?, int(now, "time")?])?;
    let held =
        tx.prepare("UPDATE commands SET live = 2, waiting = 'restored' WHERE live = 1 AND phase = 0")?.execute([])?;
    let voided = joins::void_all(tx, now)?;
    let body = serde_json::json!({
        "incarnation": identity.incarnation.0, "held": held, "join_tokens": voided, "claimed_by": claimant.as_str(), "heard": heard.0, "had": ours,
    })
    .to_string();
    events::add(tx, now, "store.restored", events::Subject::default(), &body)?;
    audit::done(tx, &agents::manager(), "store.restored", "store", &body, now)?;
    tx.become_identity(identity.clone());
    Ok(identity)
}

fn take_in(tx: &Tx<'_>, import: &Import, now: Millis) -> Result<CommandId, StoreError> {
    let agent = agents::expect(tx.connection(), &import.agent)?;
    if agent.generation != import.generation {
        return Err(StoreError::NotMine);
    }
    if let Some(known) = moves::by_uid(tx.connection(), &import.uid)? {
        return if known.agent == import.generation.0 { Ok(known.id) } else { Err(StoreError::NotMine) };
    }
    let id = insert(tx, import, free_id(tx, import.id)?, now)?;
    let mut standing = moves::by_id(tx.connection(), id)?.ok_or_else(|| StoreError::not_found("command", id))?;
    standing.journal = Some(import.journal);
    let body = format!(r#"{{"id":{id},"phase":"queued","imported":true}}"#);
    events::add(tx, now, "command.imported", subject(&standing), &body)?;
    moves::advance(tx, &mut standing, PhaseEvent::Sent, now, now)?;
    take_held(tx, &mut standing, import.phase, now, now)?;
    let actor = agent_actor(&import.agent);
    audit::done(tx, &actor, "command.import", &id.to_string(), &format!(r#"{{"uid":"{}"}}"#, import.uid), now)?;
    Ok(id)
}

/// Keeps the id that an agent names where that is sound: one that this store skipped when it began a new life, and that
/// nobody has taken since. Every other id is either ahead of the counter, which an agent must not move, or was given out
/// here: without its row it is that of a pruned command, perhaps of another agent, of which audit and events still speak.
fn free_id(tx: &Tx<'_>, wanted: CommandId) -> Result<Option<i64>, StoreError> {
    let Ok(id) = i64::try_from(wanted.0) else { return Ok(None) };
    if !meta::skipped(tx.connection(), id)? {
        return Ok(None);
    }
    let taken: Option<i64> =
        tx.prepare("SELECT id FROM commands WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()?;
    Ok(taken.is_none().then_some(id))
}

fn insert(tx: &Tx<'_>, import: &Import, id: Option<i64>, now: Millis) -> Result<CommandId, StoreError> {
    let Uid(uid) = import.uid;
    // The agent's word about times is bounded: nothing was made in the future, and nothing is valid longer than we grant.
    // Of a command that only has its end left, it may not be known at all.
    let created_at = if import.created_at == 0 { now } else { import.created_at.min(now) };
    let longest = u64::try_from(common::limits::MAX_EXPIRY.as_millis()).unwrap_or(u64::MAX);
    let expires_at = import.expires_at.min(now.saturating_add(longest));
    let job = match import.job {
        Some(job) => {
            let known: Option<i64> = tx
                .prepare("SELECT id FROM jobs WHERE id = ?1")?
                .query_row([i64::try_from(job.0).unwrap_or(0)], |row| row.get(0))
                .optional()?;
            known
        }
        None => None,
    };
    let id = tx
        .prepare(
            "INSERT INTO commands (id, uid, agent, job, attempt, operation, request, phase, live, created_at,
                 created_by, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9, ?10, ?11)",
        )?
        .insert(params![
            id,
            &uid[..],
            int(import.generation.0, "generation")?,
            job,
            import.attempt,
            import.request.operation,
            json(&import.request)?,
            phase_code(Phase::Queued),
            int(created_at, "time")?,
            agent_actor(&import.agent).0,
            int(expires_at, "expiry")?,
        ])?;
    Ok(CommandId(uint(id)))
}

fn agent_actor(name: &Name) -> Actor {
    Actor(format!("agent:{name}"))
}
