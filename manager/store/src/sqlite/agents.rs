//! Agents: one row for each bearer of a name. The generation is the key and is never given out twice.

use std::sync::Arc;

use common::id::{CommandId, Epoch, Generation, Name};
use common::model::Phase;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::codes::{from_json, int, json, limit as sql_limit, name as name_of, uid, uint};
use super::database::Database;
use super::writer::Tx;
use super::{audit, events, keys, moves};
use crate::error::StoreError;
use crate::revocations::Revoked;
use crate::types::{Actor, Agent, Millis};

const COLUMNS: &str = "generation, name, epoch, created_at, connected_at, disconnected_at, address, version, isolation,
     journal, boot_id, cores, memory_bytes, labels, quarantined, drained, groups, join_token";

impl Database {
    /// Makes an agent if there is none of this name.
    pub(crate) async fn ensure_agent(
        &self,
        name: &Name,
        actor: &Actor,
        now: Millis,
    ) -> Result<(Agent, bool), StoreError> {
        let (name, actor) = (name.clone(), actor.clone());
        self.write(move |tx| ensure(tx, &name, &actor, now)).await
    }

    /// Finds an agent.
    pub(crate) async fn agent(&self, name: &Name) -> Result<Option<Agent>, StoreError> {
        let name = name.clone();
        self.read(move |connection| find(connection, &name)).await
    }

    /// Lists agents by name.
    pub(crate) async fn agents(&self, after: Option<Name>, limit: usize) -> Result<Vec<Agent>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM agents WHERE removed_at IS NULL AND name > ?1 ORDER BY name LIMIT ?2"
            ))?;
            let after = after.as_ref().map_or("", Name::as_str);
            let mut rows = statement.query(params![after, sql_limit(limit)])?;
            let mut agents = Vec::new();
            while let Some(row) = rows.next()? {
                agents.push(read(row)?);
            }
            Ok(agents)
        })
        .await
    }

    /// Counts agents.
    pub(crate) async fn agent_count(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let count = connection
                .prepare_cached("SELECT count(*) FROM agents WHERE removed_at IS NULL")?
                .query_row([], |row| row.get(0))?;
            Ok(uint(count))
        })
        .await
    }

    /// Removes an agent and ends its commands.
    pub(crate) async fn remove_agent(
        &self,
        name: &Name,
        actor: &Actor,
        now: Millis,
    ) -> Result<Vec<CommandId>, StoreError> {
        let (name, actor) = (name.clone(), actor.clone());
        let revocations = Arc::clone(&self.shared.revocations);
        self.write(move |tx| {
            let agent = expect(tx.connection(), &name)?;
            revocations.add(&Revoked::Agent(agent.generation.0))?;
            let ended = end_all(tx, &agent, &actor, now)?;
            tx.prepare("UPDATE agents SET removed_at = ?2 WHERE generation = ?1")?
                .execute(params![int(agent.generation.0, "generation")?, int(now, "time")?])?;
            keys::forget(tx, agent.generation)?;
            note(
                tx,
                &name,
                "agent.removed",
                &actor,
                "agent.remove",
                &format!(r#"{{"commands":{}}}"#, ended.len()),
                now,
            )?;
            Ok(ended)
        })
        .await
    }

    /// Lifts a quarantine.
    pub(crate) async fn accept_agent(&self, name: &Name, actor: &Actor, now: Millis) -> Result<Agent, StoreError> {
        let (name, actor) = (name.clone(), actor.clone());
        self.write(move |tx| {
            let agent = expect(tx.connection(), &name)?;
            if agent.quarantined.is_some() {
                tx.prepare("UPDATE agents SET quarantined = NULL WHERE generation = ?1")?
                    .execute([int(agent.generation.0, "generation")?])?;
                note(tx, &name, "agent.accepted", &actor, "agent.accept", "{}", now)?;
            }
            expect(tx.connection(), &name)
        })
        .await
    }

    /// Serves nobody of this name until an operator accepts one.
    pub(crate) async fn quarantine(&self, name: &Name, reason: &str, now: Millis) -> Result<(), StoreError> {
        let (name, reason) = (name.clone(), reason.to_owned());
        self.write(move |tx| {
            let agent = expect(tx.connection(), &name)?;
            // The first reason stands: it names the two that met.
            if agent.quarantined.is_none() {
                tx.prepare("UPDATE agents SET quarantined = ?2 WHERE generation = ?1")?
                    .execute(params![int(agent.generation.0, "generation")?, reason])?;
                let details = serde_json::json!({ "reason": reason }).to_string();
                note(tx, &name, "agent.quarantined", &manager(), "agent.quarantine", &details, now)?;
            }
            Ok(())
        })
        .await
    }

    /// Stops or resumes sending new commands.
    pub(crate) async fn set_drained(
        &self,
        name: &Name,
        drained: bool,
        actor: &Actor,
        now: Millis,
    ) -> Result<Agent, StoreError> {
        let (name, actor) = (name.clone(), actor.clone());
        self.write(move |tx| {
            let agent = expect(tx.connection(), &name)?;
            if agent.drained != drained {
                tx.prepare("UPDATE agents SET drained = ?2 WHERE generation = ?1")?
                    .execute(params![int(agent.generation.0, "generation")?, drained])?;
                let (kind, action) =
                    if drained { ("agent.drained", "agent.drain") } else { ("agent.undrained", "agent.undrain") };
                note(tx, &name, kind, &actor, action, "{}", now)?;
            }
            expect(tx.connection(), &name)
        })
        .await
    }
}

/// The actor of what the manager does by itself.
pub(super) fn manager() -> Actor {
    Actor("manager".to_owned())
}

/// Finds the present bearer of a name.
pub(super) fn find(connection: &Connection, name: &Name) -> Result<Option<Agent>, StoreError> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM agents WHERE name = ?1 AND removed_at IS NULL"))?
        .query_row([name.as_str()], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

/// Finds the present bearer of a name, who must be there.
pub(super) fn expect(connection: &Connection, name: &Name) -> Result<Agent, StoreError> {
    find(connection, name)?.ok_or_else(|| StoreError::not_found("agent", name))
}

fn ensure(tx: &Tx<'_>, name: &Name, actor: &Actor, now: Millis) -> Result<(Agent, bool), StoreError> {
    if let Some(agent) = find(tx.connection(), name)? {
        return Ok((agent, false));
    }
    insert(tx, name, &[], None, now)?;
    note(tx, name, "agent.created", actor, "agent.create", "{}", now)?;
    Ok((expect(tx.connection(), name)?, true))
}

/// Makes an agent of a name that nobody has, with a generation that nobody had.
pub(super) fn insert(
    tx: &Tx<'_>,
    name: &Name,
    groups: &[String],
    join_token: Option<&str>,
    now: Millis,
) -> Result<Generation, StoreError> {
    // Epochs go on over all bearers of a name: whoever compares two of them need not know which bearer they were.
    let generation = tx
        .prepare(
            "INSERT INTO agents (name, epoch, created_at, groups, join_token)
             VALUES (?1, COALESCE((SELECT max(epoch) FROM agents WHERE name = ?1), 0), ?2, ?3, ?4)",
        )?
        .insert(params![name.as_str(), int(now, "time")?, json(groups)?, join_token])?;
    Ok(Generation(uint(generation)))
}

/// Ends everything unfinished of an agent that goes.
fn end_all(tx: &Tx<'_>, agent: &Agent, actor: &Actor, now: Millis) -> Result<Vec<CommandId>, StoreError> {
    let open: Vec<CommandId> = tx
        .prepare(
            "SELECT id FROM commands
             WHERE live IN (1, 2) AND phase IN (0, 1, 2, 3, 4, 5, 6) AND agent = ?1 ORDER BY id",
        )?
        .query_map([int(agent.generation.0, "generation")?], |row| Ok(CommandId(uint(row.get(0)?))))?
        .collect::<Result<_, _>>()?;
    for id in &open {
        let Some(mut standing) = moves::by_id(tx.connection(), *id)? else { continue };
        if standing.phase == Phase::Queued {
            moves::cancel_queued(tx, &mut standing, actor, Some("the agent was removed"), now)?;
        } else {
            moves::give_up(tx, &mut standing, "agent_removed", "the agent was removed", now)?;
        }
    }
    // What had ended and was not yet delivered in full will never be.
    tx.prepare(
        "UPDATE commands SET output_closed = 1, live = NULL
         WHERE live = 1 AND phase IN (10, 11, 12, 13, 14, 15, 16) AND agent = ?1",
    )?
    .execute([int(agent.generation.0, "generation")?])?;
    Ok(open)
}

/// Writes event and audit of a change of an agent.
pub(super) fn note(
    tx: &Tx<'_>,
    name: &Name,
    kind: &str,
    actor: &Actor,
    action: &str,
    details: &str,
    now: Millis,
) -> Result<(), StoreError> {
    let subject = events::Subject { agent: Some(name.as_str()), command: None };
    events::add(tx, now, kind, subject, details)?;
    audit::done(tx, actor, action, name.as_str(), details, now)
}

fn read(row: &Row<'_>) -> Result<Agent, StoreError> {
    let name: String = row.get(1)?;
    let journal: Option<Vec<u8>> = row.get(9)?;
    let labels: String = row.get(13)?;
    let groups: String = row.get(16)?;
    Ok(Agent {
        generation: Generation(uint(row.get(0)?)),
        name: name_of(&name)?,
        epoch: Epoch(uint(row.get(2)?)),
        created_at: uint(row.get(3)?),
        connected_at: row.get::<_, Option<i64>>(4)?.map(uint),
        disconnected_at: row.get::<_, Option<i64>>(5)?.map(uint),
        address: row.get(6)?,
        version: row.get(7)?,
        isolation: row.get(8)?,
        journal: journal.as_deref().map(uid).transpose()?,
        boot_id: row.get(10)?,
        cores: row.get(11)?,
        memory_bytes: row.get::<_, Option<i64>>(12)?.map(uint),
        labels: from_json(&labels, "labels")?,
        groups: from_json(&groups, "groups")?,
        join_token: row.get(17)?,
        quarantined: row.get(14)?,
        drained: row.get(15)?,
    })
}
