//! The right to a command, weighed again while it has not left: what may not be sent any more ends here, as refused.

use common::id::CommandId;
use common::model::{Outcome, Phase, PhaseEvent};
use rusqlite::Connection;

use super::codes::{from_json, name as name_of, uint};
use super::database::Database;
use super::moves::{self, Standing};
use super::writer::Tx;
use super::{agents, audit};
use crate::error::StoreError;
use crate::limits::REFUSED_AT_ONCE;
use crate::types::{Actor, AuditEntry, AuditOutcome, Authority, End, Judge, JudgeAsk, Millis};

impl Database {
    /// Ends what was never sent and may not be any more.
    pub(crate) async fn refuse_queued(&self, judge: &Judge, now: Millis) -> Result<Vec<CommandId>, StoreError> {
        let asked = judge.clone();
        // Weighed beside the writer: a long queue holds up nobody. What comes in meanwhile is weighed when it is due.
        let found = self.read(move |connection| unjust(connection, &asked)).await?;
        let mut ended = Vec::new();
        for some in found.chunks(REFUSED_AT_ONCE) {
            let some = some.to_vec();
            ended.extend(
                self.write(move |tx| {
                    let mut ended = Vec::new();
                    for (id, ask) in some {
                        let standing = moves::by_id(tx.connection(), id)?;
                        // It may have been sent since it was found; then it was just at that moment.
                        if let Some(mut standing) = standing.filter(|standing| standing.phase == Phase::Queued) {
                            refuse(tx, &mut standing, &ask, now)?;
                            ended.push(id);
                        }
                    }
                    Ok(ended)
                })
                .await?,
            );
        }
        Ok(ended)
    }
}

/// Reads an authority as it is stored with a command.
pub(super) fn authority(text: Option<String>) -> Result<Option<Authority>, StoreError> {
    text.map(|text| from_json(&text, "authority")).transpose()
}

/// Ends a command that may not be sent.
pub(super) fn refuse(tx: &Tx<'_>, standing: &mut Standing, ask: &JudgeAsk, now: Millis) -> Result<(), StoreError> {
    let error = moves::error("not_allowed", "whoever asked for it may not have it done any more");
    let end = End { error: Some(error), ..moves::bare_end(Outcome::Refused, now) };
    moves::end_here(tx, standing, PhaseEvent::RefusedHere, &end, now)?;
    let details = serde_json::json!({
        "agent": ask.agent.as_str(), "operation": ask.operation, "user": ask.user, "code": "not_allowed",
        "via": ask.authority.as_ref().map(|authority| &authority.via),
    });
    let entry = AuditEntry {
        actor: ask.authority.as_ref().map_or_else(agents::manager, |authority| Actor(authority.actor.clone())),
        action: "command.dispatch".to_owned(),
        object: standing.id.to_string(),
        outcome: AuditOutcome::Refused,
        details: details.to_string(),
    };
    audit::add(tx, &entry, now)
}

/// Which queued commands the judge does not let go.
fn unjust(connection: &Connection, judge: &Judge) -> Result<Vec<(CommandId, JudgeAsk)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT c.id, c.authority, a.name, a.groups, c.operation, json_extract(COALESCE(c.request, j.request), '$.user')
         FROM commands c JOIN agents a ON a.generation = c.agent LEFT JOIN jobs j ON j.id = c.job
         WHERE c.live IN (1, 2) AND c.phase = 0",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (agent, groups): (String, String) = (row.get(2)?, row.get(3)?);
        let ask = JudgeAsk {
            authority: authority(row.get(1)?)?,
            agent: name_of(&agent)?,
            groups: from_json(&groups, "groups")?,
            operation: row.get(4)?,
            user: row.get(5)?,
        };
        if !judge(&ask) {
            found.push((CommandId(uint(row.get(0)?)), ask));
        }
    }
    found.sort_by_key(|(id, _)| *id);
    Ok(found)
}
