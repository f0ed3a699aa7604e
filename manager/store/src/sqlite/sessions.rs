//! Sessions of agents: the epoch that says which is the newest, and when they began and ended.

use common::id::{Epoch, Name};
use rusqlite::params;

use super::codes::{int, json};
use super::database::Database;
use super::writer::Tx;
use super::{agents, events, keys};
use crate::error::StoreError;
use crate::types::{Connect, Millis};

impl Database {
    /// Records a new session.
    pub(crate) async fn agent_connected(&self, connect: Connect, now: Millis) -> Result<Epoch, StoreError> {
        let generation = connect.generation;
        let epoch = self.write(move |tx| connected(tx, &connect, now)).await?;
        self.shared.known.saw(generation);
        Ok(epoch)
    }

    /// Records the end of a session that is still the newest.
    pub(crate) async fn agent_disconnected(&self, name: &Name, epoch: Epoch, now: Millis) -> Result<(), StoreError> {
        let name = name.clone();
        self.write(move |tx| {
            let ended = tx
                .prepare(
                    "UPDATE agents SET disconnected_at = ?3
                     WHERE name = ?1 AND removed_at IS NULL AND epoch = ?2 AND disconnected_at IS NULL",
                )?
                .execute(params![name.as_str(), int(epoch.0, "epoch")?, int(now, "time")?])?;
            if ended > 0 {
                let subject = events::Subject { agent: Some(name.as_str()), command: None };
                events::add(tx, now, "agent.disconnected", subject, &format!(r#"{{"epoch":{epoch}}}"#))?;
            }
            Ok(())
        })
        .await
    }
}

fn connected(tx: &Tx<'_>, connect: &Connect, now: Millis) -> Result<Epoch, StoreError> {
    let agent = agents::expect(tx.connection(), &connect.name)?;
    if agent.generation != connect.generation {
        return Err(StoreError::Fenced(connect.name.clone()));
    }
    if let Some(reason) = agent.quarantined {
        return Err(StoreError::Quarantined { agent: connect.name.clone(), reason });
    }
    if let Some(spki) = &connect.spki
        && !keys::admit(tx, &connect.name, agent.generation, spki, now)?
    {
        return Err(StoreError::Fenced(connect.name.clone()));
    }
    let epoch = Epoch(agent.epoch.0 + 1);
    tx.prepare(
        "UPDATE agents SET epoch = ?2, connected_at = ?3, disconnected_at = NULL, address = ?4, version = ?5,
             isolation = ?6, journal = ?7, boot_id = ?8, cores = ?9, memory_bytes = ?10, labels = ?11
         WHERE generation = ?1",
    )?
    .execute(params![
        int(agent.generation.0, "generation")?,
        int(epoch.0, "epoch")?,
        int(now, "time")?,
        connect.address,
        connect.version,
        connect.isolation,
        &connect.journal.0[..],
        connect.boot_id,
        connect.cores,
        // A host may claim anything; what does not fit is as good as the most that does.
        i64::try_from(connect.memory_bytes).unwrap_or(i64::MAX),
        json(&connect.labels)?,
    ])?;
    let body = serde_json::json!({ "epoch": epoch.0, "address": connect.address, "version": connect.version });
    let subject = events::Subject { agent: Some(connect.name.as_str()), command: None };
    events::add(tx, now, "agent.connected", subject, &body.to_string())?;
    Ok(epoch)
}
