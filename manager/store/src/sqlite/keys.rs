//! Keys of agents: which public keys the present bearer of a name may show.
//!
//! ```text
//! join, certificate ─► unused ─► first session with it: older ones go ─► renewal: a newer one beside it ─► …
//! ```
//! The key in use stays until the newer one was shown, so an answer that gets lost costs nothing; whoever was left with an
//! older key, such as the copy of a disk, is fenced from then on.

use common::id::{Generation, Name};
use rusqlite::{Connection, OptionalExtension, params};

use super::codes::{int, uint};
use super::database::Database;
use super::writer::Tx;
use super::{agents, audit};
use crate::error::StoreError;
use crate::types::{Actor, AgentKey, KeyReason, Millis, NewAgentKey};

impl Database {
    /// Binds another key to an agent.
    pub(crate) async fn agent_key_add(&self, key: NewAgentKey, actor: &Actor, now: Millis) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.write(move |tx| add(tx, &key, &actor, now)).await
    }

    /// Lists the keys of an agent, oldest first.
    pub(crate) async fn agent_keys(&self, generation: Generation) -> Result<Vec<AgentKey>, StoreError> {
        self.read(move |connection| Ok(list(connection, generation)?.into_iter().map(|(_, key)| key).collect())).await
    }

    /// Notes that a key was shown.
    pub(crate) async fn key_seen(&self, generation: Generation, spki: [u8; 32], now: Millis) -> Result<(), StoreError> {
        self.write(move |tx| seen(tx, generation, &spki, now).map(|_| ())).await
    }

    /// Counts agents that have shown no certificate of an authority.
    pub(crate) async fn agents_without_issuer(&self, issuer: u32) -> Result<u64, StoreError> {
        self.read(move |connection| {
            let count = connection
                .prepare_cached(
                    "SELECT count(*) FROM agents a WHERE removed_at IS NULL AND NOT EXISTS (
                         SELECT 1 FROM agent_keys k
                         WHERE k.generation = a.generation AND k.issuer = ?1 AND k.first_used_at IS NOT NULL)",
                )?
                .query_row([issuer], |row| row.get(0))?;
            Ok(uint(count))
        })
        .await
    }
}

/// Tells whether an agent may come with this key, and notes that it did. The first one that is shown by an agent without
/// any is bound to it.
pub(super) fn admit(
    tx: &Tx<'_>,
    name: &Name,
    generation: Generation,
    spki: &[u8; 32],
    now: Millis,
) -> Result<bool, StoreError> {
    if seen(tx, generation, spki, now)? {
        return Ok(true);
    }
    if !list(tx.connection(), generation)?.is_empty() {
        return Ok(false);
    }
    insert(tx, generation, spki, None, Some(now), now)?;
    let details = serde_json::json!({ "generation": generation.0, "key": hex(spki) }).to_string();
    audit::done(tx, &agents::manager(), "agent.key_bound", name.as_str(), &details, now)?;
    Ok(true)
}

/// Writes a key down as the newest of its agent. `signed`: which authority signs, and until when that holds.
pub(super) fn insert(
    tx: &Tx<'_>,
    generation: Generation,
    spki: &[u8; 32],
    signed: Option<(u32, Millis)>,
    first_used_at: Option<Millis>,
    now: Millis,
) -> Result<(), StoreError> {
    tx.prepare(
        "INSERT INTO agent_keys (generation, spki, issuer, issued_at, not_after, first_used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        int(generation.0, "generation")?,
        spki,
        signed.map(|(issuer, _)| issuer),
        int(now, "time")?,
        signed.map(|(_, not_after)| int(not_after, "expiry")).transpose()?,
        first_used_at.map(|at| int(at, "time")).transpose()?,
    ])?;
    Ok(())
}

/// Notes that a key gets its certificate once more; `false` when it is no longer one of the agent's.
pub(super) fn reissued(
    tx: &Tx<'_>,
    generation: Generation,
    spki: &[u8; 32],
    (issuer, not_after): (u32, Millis),
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = tx
        .prepare(
            "UPDATE agent_keys SET issuer = ?3, not_after = ?4, issued_at = ?5 WHERE generation = ?1 AND spki = ?2",
        )?
        .execute(params![
            int(generation.0, "generation")?,
            spki,
            issuer,
            int(not_after, "expiry")?,
            int(now, "time")?
        ])?;
    Ok(changed == 1)
}

/// Forgets the keys of an agent that goes.
pub(super) fn forget(tx: &Tx<'_>, generation: Generation) -> Result<(), StoreError> {
    tx.prepare("DELETE FROM agent_keys WHERE generation = ?1")?.execute([int(generation.0, "generation")?])?;
    Ok(())
}

/// The digits of a hash, as people compare them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Notes that a key was shown: the older ones are of no use any more. `false` when the agent has no such key.
fn seen(tx: &Tx<'_>, generation: Generation, spki: &[u8; 32], now: Millis) -> Result<bool, StoreError> {
    let agent = int(generation.0, "generation")?;
    let found: Option<(i64, Option<i64>)> = tx
        .prepare("SELECT number, first_used_at FROM agent_keys WHERE generation = ?1 AND spki = ?2")?
        .query_row(params![agent, spki], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((number, used)) = found else { return Ok(false) };
    if used.is_none() {
        tx.prepare("UPDATE agent_keys SET first_used_at = ?2 WHERE number = ?1")?
            .execute(params![number, int(now, "time")?])?;
        tx.prepare("DELETE FROM agent_keys WHERE generation = ?1 AND number < ?2")?.execute([agent, number])?;
    }
    Ok(true)
}

fn add(tx: &Tx<'_>, key: &NewAgentKey, actor: &Actor, now: Millis) -> Result<(), StoreError> {
    let agent = agents::expect(tx.connection(), &key.agent)?;
    if agent.generation != key.generation {
        return Err(StoreError::Fenced(key.agent.clone()));
    }
    let (by, kind, action) = match key.reason {
        KeyReason::Renewed { by } => (Some(by), "agent.renewed", "agent.renew"),
        KeyReason::Recovered { by } => (Some(by), "agent.recovered", "agent.recover"),
        KeyReason::Issued => (None, "agent.certified", "agent.certificate"),
    };
    if let Some(by) = by {
        if let Some(reason) = agent.quarantined {
            return Err(StoreError::Quarantined { agent: key.agent.clone(), reason });
        }
        if !admit(tx, &key.agent, key.generation, &by, now)? {
            return Err(StoreError::Fenced(key.agent.clone()));
        }
    }
    let present = list(tx.connection(), key.generation)?;
    let kept = kept(&present, by.as_ref());
    for (number, old) in &present {
        if Some(*number) != kept || old.spki == key.spki {
            tx.prepare("DELETE FROM agent_keys WHERE number = ?1")?.execute([number])?;
        }
    }
    let used = present.iter().find(|(_, old)| old.spki == key.spki).and_then(|(_, old)| old.first_used_at);
    insert(tx, key.generation, &key.spki, Some((key.issuer, key.not_after)), used, now)?;
    let details = serde_json::json!({
        "generation": key.generation.0, "key": hex(&key.spki), "issuer": key.issuer, "not_after": key.not_after,
    })
    .to_string();
    agents::note(tx, &key.agent, kind, actor, action, &details, now)
}

/// Which of the present keys stays beside a new one: the one that asks, else the newest in use, else the newest.
fn kept(present: &[(i64, AgentKey)], by: Option<&[u8; 32]>) -> Option<i64> {
    let asking = by.and_then(|by| present.iter().find(|(_, key)| key.spki == *by));
    asking
        .or_else(|| present.iter().rfind(|(_, key)| key.first_used_at.is_some()))
        .or_else(|| present.last())
        .map(|(number, _)| *number)
}

fn list(connection: &Connection, generation: Generation) -> Result<Vec<(i64, AgentKey)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number, spki, issuer, issued_at, not_after, first_used_at FROM agent_keys
         WHERE generation = ?1 ORDER BY number",
    )?;
    let rows = statement.query_map([int(generation.0, "generation")?], |row| {
        let key = AgentKey {
            generation,
            spki: row.get(1)?,
            issuer: row.get(2)?,
            issued_at: uint(row.get(3)?),
            not_after: row.get::<_, Option<i64>>(4)?.map(uint),
            first_used_at: row.get::<_, Option<i64>>(5)?.map(uint),
        };
        Ok((row.get(0)?, key))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
