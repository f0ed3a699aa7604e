//! Events and rows of the audit.

use api::audit::AuditRow;
use api::events::Event;
use api::time::Time;
use serde_json::Value;
use store::types;

use crate::audit::hex;

/// Shows an event.
pub(in crate::http) fn event(event: types::Event) -> Event {
    Event {
        seq: event.seq,
        at: Time(event.at),
        kind: event.kind,
        agent: event.agent,
        command: event.command.map(|id| id.0),
        body: json(event.body),
    }
}

/// Shows a row of the audit.
pub(in crate::http) fn audit_row(row: types::AuditRow) -> AuditRow {
    AuditRow {
        seq: row.seq,
        at: Time(row.at),
        actor: row.actor.0,
        action: row.action,
        object: row.object,
        outcome: row.outcome,
        details: json(row.details),
        hash: hex(&row.hash),
    }
}

fn json(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}
