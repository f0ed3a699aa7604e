//! Refusals in the audit: callers who may not, and strangers who show something like a token.
//!
//! Anybody who reaches the port can cause them, so that only some each second become rows; the rest are counted, and the
//! next row says how many there were. Strangers have a share of their own, and so has each caller: nobody can hide what
//! another one tried.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use common::escape;
use store::types::{Actor, AuditEntry, AuditOutcome};
use tokio::time::Instant;

use super::callers::{Caller, split_bearer};
use super::core::Service;
use crate::limits::{ACTORS_KEPT, REFUSAL_ROWS, REFUSAL_WINDOW};

/// A request that was refused at the door.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused<'a> {
    /// Where it came from.
    pub(crate) from: &'a str,
    /// What was asked, as `GET /agents`; still as the peer wrote it.
    pub(crate) asked: &'a str,
    /// The stable code of the answer.
    pub(crate) code: &'a str,
}

/// The shares of both kinds of refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    strangers: Share,
    /// By actor.
    callers: Mutex<HashMap<String, Share>>,
    /// Of callers that found no place among those.
    others: Share,
}

#[derive(Debug, Default)]
struct Share(Mutex<Spent>);

#[derive(Debug, Default)]
struct Spent {
    since: Option<Instant>,
    rows: u32,
    skipped: u64,
}

impl Refusals {
    /// Takes the right of a caller to leave a row; answers how many of its refusals were not written since the last one.
    pub(super) fn take(&self, actor: &Actor, now: Instant) -> Option<u64> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= ACTORS_KEPT && !callers.contains_key(&actor.0) {
            callers.retain(|_, share| !share.is_rested(now));
            if callers.len() >= ACTORS_KEPT {
                return self.others.take(now);
            }
        }
        callers.entry(actor.0.clone()).or_default().take(now)
    }
}

impl Share {
    /// Tells whether nothing needs to be remembered.
    fn is_rested(&self, now: Instant) -> bool {
        let spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spent.skipped == 0 && spent.since.is_none_or(|since| now.duration_since(since) >= REFUSAL_WINDOW)
    }

    /// Takes the right to write a row; answers how many refusals were not written since the last one.
    fn take(&self, now: Instant) -> Option<u64> {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.since.is_none_or(|since| now.duration_since(since) >= REFUSAL_WINDOW) {
            (spent.since, spent.rows) = (Some(now), 0);
        }
        if spent.rows >= REFUSAL_ROWS {
            spent.skipped += 1;
            return None;
        }
        spent.rows += 1;
        Some(std::mem::take(&mut spent.skipped))
    }
}

impl Service {
    /// Notes that somebody came whose token is none. What does not even look like a token is only counted.
    pub(crate) async fn note_stranger(&self, bearer: Option<&str>, refused: Refused<'_>) {
        self.counters().refused.add(1);
        let Some((id, _)) = bearer.and_then(split_bearer) else { return };
        if let Some(skipped) = self.refusals().strangers.take(Instant::now()) {
            self.write_refusal(Actor("unknown".to_owned()), Some(id), refused, skipped).await;
        }
    }

    /// Notes that a caller asked for what its scope does not allow.
    pub(crate) async fn note_overreach(&self, caller: &Caller, refused: Refused<'_>) {
        self.counters().refused.add(1);
        if let Some(skipped) = self.refusals().take(&caller.actor, Instant::now()) {
            self.write_refusal(caller.actor.clone(), None, refused, skipped).await;
        }
    }

    async fn write_refusal(&self, actor: Actor, token: Option<&str>, refused: Refused<'_>, skipped: u64) {
        let details = serde_json::json!({
            "code": refused.code, "from": refused.from, "token": token, "not_written_before": skipped,
        });
        let entry = AuditEntry {
            actor,
            action: "api.request".to_owned(),
            object: escape::text(refused.asked),
            outcome: AuditOutcome::Refused,
            details: details.to_string(),
        };
        if let Err(error) = self.store().audit(entry, self.now()).await {
            tracing::warn!(error = %common::error::Chain(&error), "a refusal could not be written to the audit");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_has_so_many_rows_and_the_next_says_how_many_were_left_out() {
        let share = Share::default();
        let now = Instant::now();
        for _ in 0..REFUSAL_ROWS {
            assert_eq!(share.take(now), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(share.take(now + REFUSAL_WINDOW - Duration::from_millis(1)), None);
        }
        assert_eq!(share.take(now + REFUSAL_WINDOW), Some(1_000));
        assert_eq!(share.take(now + REFUSAL_WINDOW), Some(0));
    }

    #[test]
    fn a_caller_that_floods_hides_nobody_else_and_memory_is_bounded() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let actor = |number: usize| Actor(format!("actor{number}"));
        let written = (0..1_000).filter(|_| refusals.take(&actor(0), now).is_some()).count();
        assert_eq!(written, REFUSAL_ROWS as usize);
        assert_eq!(refusals.take(&actor(1), now), Some(0));
        let written = (0..10 * ACTORS_KEPT).filter(|number| refusals.take(&actor(*number), now).is_some()).count();
        assert!(written <= ACTORS_KEPT + REFUSAL_ROWS as usize, "{written}");
        assert_eq!(refusals.callers.lock().unwrap_or_else(PoisonError::into_inner).len(), ACTORS_KEPT);
        let later = now + REFUSAL_WINDOW;
        assert_eq!(refusals.take(&actor(5 * ACTORS_KEPT), later), Some(0), "those that rest make room");
        assert_eq!(refusals.take(&actor(0), later), Some(991), "and what was not written is still told");
    }
}
