//! The wish to stop a command: done here where it was never sent, else recorded and told to the agent until it ends.
//!
//! ```text
//! first wish ─► queued: cancelled; else due (once a session, again after a while) ─► the agent's END
//! second     ─► plain: no grace any more; named: where shorter than what is left; the same call again: nothing
//! ```

use std::time::Duration;

use common::id::CommandId;
use common::model::Phase;
use rusqlite::params;

use super::codes::{from_json, int, json};
use super::database::Database;
use super::moves::{self, Standing};
use super::writer::Tx;
use super::{audit, events};
use crate::error::StoreError;
use crate::limits::CANCEL_KEYS;
use crate::types::{Actor, Cancel, CancelAnswer, Millis, Request};

impl Database {
    /// Stops a command, or records the wish.
    pub(crate) async fn cancel(
        &self,
        id: CommandId,
        wish: Cancel,
        actor: &Actor,
        now: Millis,
    ) -> Result<CancelAnswer, StoreError> {
        let actor = actor.clone();
        self.write(move |tx| {
            let standing = moves::by_id(tx.connection(), id)?.ok_or_else(|| StoreError::not_found("command", id))?;
            cancel(tx, standing, wish, &actor, now)
        })
        .await
    }
}

fn cancel(
    tx: &Tx<'_>,
    mut standing: Standing,
    wish: Cancel,
    actor: &Actor,
    now: Millis,
) -> Result<CancelAnswer, StoreError> {
    if standing.phase.is_final() {
        return Ok(CancelAnswer::AlreadyFinal(standing.phase));
    }
    let told = serde_json::json!({ "phase": standing.phase, "reason": wish.reason }).to_string();
    // The first wish stands; a later one can only make it more urgent.
    let (wish, again) = match standing.cancel.take() {
        Some(first) => match hastened(tx, &standing, first, wish, now)? {
            Some(wish) => (wish, true),
            None => return Ok(CancelAnswer::Pending { phase: standing.phase, again: true }),
        },
        None => (wish, false),
    };
    // Also kept for a command that ends here: should its agent know it after all, it is told to stop.
    // Whoever is to stop is not told to pause any more; a wish that was not heard is forgotten.
    tx.prepare(
        "UPDATE commands SET cancel = ?2, cancel_epoch = 0, cancel_sent_at = 0,
             pause = CASE WHEN pause_due IS NULL THEN pause END, pause_due = NULL
         WHERE id = ?1",
    )?
    .execute(params![int(standing.id.0, "id")?, json(&wish)?])?;
    audit::done(tx, actor, "command.cancel", &standing.id.to_string(), &told, now)?;
    if standing.phase == Phase::Queued {
        moves::cancel_queued(tx, &mut standing, &wish.by, wish.reason.as_deref(), now)?;
        return Ok(CancelAnswer::Done);
    }
    let subject = events::Subject { agent: Some(standing.agent_name.as_str()), command: Some(standing.id) };
    events::add(tx, now, "command.cancel_pending", subject, &told)?;
    Ok(CancelAnswer::Pending { phase: standing.phase, again })
}

/// Joins a later wish to the first; `None` when it changes nothing.
fn hastened(
    tx: &Tx<'_>,
    standing: &Standing,
    first: Cancel,
    later: Cancel,
    now: Millis,
) -> Result<Option<Cancel>, StoreError> {
    // A call that was sent again, because its answer was lost, is not somebody who lost patience.
    if later.keys.iter().any(|key| first.keys.contains(key)) {
        return Ok(None);
    }
    let whole = match first.grace {
        Some(grace) => grace,
        None => own_grace(tx, standing.id)?.unwrap_or(common::limits::DEFAULT_GRACE),
    };
    let grace = match later.grace {
        // Nobody waits for what is over: that is an order to end it now.
        None if !whole.is_zero() => Duration::ZERO,
        Some(named) if named < left(whole, begun(standing, &first), now) => named,
        _ => return Ok(None),
    };
    let keys: Vec<String> = first.keys.iter().cloned().chain(later.keys).collect();
    let keys = keys.into_iter().rev().take(CANCEL_KEYS).rev().collect();
    Ok(Some(Cancel { grace: Some(grace), keys, ..first }))
}

/// When the grace of the first wish began; `None` when its agent has not said that it stops the command.
fn begun(standing: &Standing, first: &Cancel) -> Option<Millis> {
    // What was stopping when it was wished away, for example because of its timeout, had no later beginning.
    first.begun.or((standing.phase == Phase::Stopping).then_some(first.at))
}

/// What is left of a grace that began then, or has not begun.
fn left(grace: Duration, since: Option<Millis>, now: Millis) -> Duration {
    let passed = since.map_or(Duration::ZERO, |since| Duration::from_millis(now.saturating_sub(since)));
    grace.saturating_sub(passed)
}

/// The grace that the command itself names.
fn own_grace(tx: &Tx<'_>, id: CommandId) -> Result<Option<Duration>, StoreError> {
    let text: String = tx
        .prepare(
            "SELECT COALESCE(c.request, j.request) FROM commands c LEFT JOIN jobs j ON j.id = c.job WHERE c.id = ?1",
        )?
        .query_row([int(id.0, "id")?], |row| row.get(0))?;
    let request: Request = from_json(&text, "request")?;
    Ok(request.options.grace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_runs_from_when_the_stop_began() {
        let second = Duration::from_secs(1);
        assert_eq!(left(10 * second, None, 99_000), 10 * second);
        assert_eq!(left(10 * second, Some(1_000), 5_000), 6 * second);
        assert_eq!(left(10 * second, Some(1_000), 11_000), Duration::ZERO);
        assert_eq!(left(10 * second, Some(1_000), u64::MAX), Duration::ZERO);
        // A clock that was set back lengthens nothing.
        assert_eq!(left(10 * second, Some(1_000), 0), 10 * second);
    }
}
