//! The phases of a command and the only function that moves it from one to the next.
//!
//! ```text
//! queued ──► dispatched ──► accepted ──► (waiting ⇄) running ⇄ paused
//!   │            │              │                      │        │
//!   │            │              └──────────┬───────────┴────────┴──► stopping
//!   ▼            ▼                         ▼                            ▼
//! cancelled    any outcome the agent reports: succeeded failed cancelled timed_out expired refused interrupted
//! expired
//! refused
//! ```
//!
//! `queued` rows belong to the manager alone. From the first send only the agent ends a command, with three named
//! exceptions, all of which end it as `interrupted`: the agent was removed or lost, its journal is another one, or its
//! journal no longer holds what it had accepted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::wire;

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Durable on the manager, never sent.
    Queued,
    /// Recorded as sent; the agent has not said that it holds it.
    Dispatched,
    /// Durable on the agent.
    Accepted,
    /// Accepted, held back by the agent for a named reason.
    Waiting,
    /// The process runs.
    Running,
    /// The process is frozen.
    Paused,
    /// The stop ladder is at work.
    Stopping,
    /// Final.
    Succeeded,
    /// Final.
    Failed,
    /// Final.
    Cancelled,
    /// Final.
    TimedOut,
    /// Final.
    Expired,
    /// Final.
    Refused,
    /// Final: started, and its end could not be observed.
    Interrupted,
}

/// How a command ended: the final phases, as the agent reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The process exited with code 0.
    Succeeded,
    /// It exited otherwise, or could not be started.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// Its timeout passed.
    TimedOut,
    /// Its validity passed before it started.
    Expired,
    /// The agent would not run it.
    Refused,
    /// It was started and its end could not be observed.
    Interrupted,
}

/// What happened to a command, as far as its phase is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseEvent {
    /// The first or a repeated send is recorded.
    Sent,
    /// The agent holds it durably.
    Accepted,
    /// The agent says it is waiting, running, paused or stopping.
    Progress(Phase),
    /// The agent reports its end.
    Ended(Outcome),
    /// The manager ends it: an operator cancelled it before it was ever sent.
    CancelledHere,
    /// The manager ends it: its validity passed before it was ever sent.
    ExpiredHere,
    /// The manager ends it: whoever submitted it may no longer, and it was never sent.
    RefusedHere,
    /// The manager ends it as interrupted: agent removed or lost, journal or record lost.
    GivenUp,
}

/// An event that has no place in the present phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a command that is {from} cannot take the event {event:?}")]
pub struct IllegalMove {
    /// The phase it is in.
    pub from: Phase,
    /// What was to happen.
    pub event: PhaseEvent,
}

impl Phase {
    /// All phases, in the order of a life.
    pub const ALL: [Self; 14] = [
        Self::Queued,
        Self::Dispatched,
        Self::Accepted,
        Self::Waiting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Expired,
        Self::Refused,
        Self::Interrupted,
    ];

    /// Tells whether nothing can happen any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        self >= Self::Succeeded
    }

    /// The name in JSON, tables and files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dispatched => "dispatched",
            Self::Accepted => "accepted",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
        }
    }

    /// Moves a command. `Ok(None)` means that the event is a repeat of something already known, or older news than
    /// what is known: nothing changes and nothing is wrong.
    ///
    /// # Errors
    /// When the event has no place in this phase.
    pub fn after(self, event: PhaseEvent) -> Result<Option<Self>, IllegalMove> {
        use PhaseEvent as E;
        let illegal = Err(IllegalMove { from: self, event });
        if self.is_final() {
            // News about a finished command is late, never wrong: it is kept as evidence by the caller.
            return match event {
                E::CancelledHere | E::ExpiredHere | E::RefusedHere | E::Sent => illegal,
                _ => Ok(None),
            };
        }
        match (self, event) {
            (Self::Queued, E::Sent) => Ok(Some(Self::Dispatched)),
            (Self::Queued, E::CancelledHere) => Ok(Some(Self::Cancelled)),
            (Self::Queued, E::ExpiredHere) => Ok(Some(Self::Expired)),
            (Self::Queued, E::RefusedHere) => Ok(Some(Self::Refused)),
            (Self::Queued, E::GivenUp) => Ok(Some(Self::Interrupted)),
            (Self::Queued, _) | (_, E::CancelledHere | E::ExpiredHere | E::RefusedHere) => illegal,
            (Self::Dispatched, E::Sent) => Ok(None),
            (Self::Dispatched, E::Accepted) => Ok(Some(Self::Accepted)),
            (_, E::Accepted) => Ok(None),
            (_, E::Sent) => illegal,
            (_, E::Ended(outcome)) => Ok(Some(outcome.into())),
            (_, E::GivenUp) => Ok(Some(Self::Interrupted)),
            (from, E::Progress(to)) => match to {
                Self::Accepted | Self::Waiting | Self::Running | Self::Paused | Self::Stopping => {
                    // A stop is never taken back; waiting and accepted never come after running.
                    let backwards = from == Self::Stopping
                        || (matches!(from, Self::Running | Self::Paused)
                            && matches!(to, Self::Accepted | Self::Waiting));
                    Ok((!backwards && from != to).then_some(to))
                }
                _ => illegal,
            },
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = UnknownPhase;

    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or(UnknownPhase)
    }
}

/// A text names no phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown phase")]
pub struct UnknownPhase;

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 7] = [
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Expired,
        Self::Refused,
        Self::Interrupted,
    ];

    /// The value on the wire.
    #[must_use]
    pub fn to_wire(self) -> i32 {
        use wire::Outcome as W;
        match self {
            Self::Succeeded => W::Succeeded,
            Self::Failed => W::Failed,
            Self::Cancelled => W::Cancelled,
            Self::TimedOut => W::TimedOut,
            Self::Expired => W::Expired,
            Self::Refused => W::Refused,
            Self::Interrupted => W::Interrupted,
        }
        .into()
    }

    /// Reads the value of a wire message; `None` for numbers this build does not know.
    #[must_use]
    pub fn from_wire(value: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.to_wire() == value)
    }
}

impl From<Outcome> for Phase {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Expired => Self::Expired,
            Outcome::Refused => Self::Refused,
            Outcome::Interrupted => Self::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<PhaseEvent> {
        let mut all = vec![PhaseEvent::Sent, PhaseEvent::Accepted];
        all.extend([Phase::Waiting, Phase::Running, Phase::Paused, Phase::Stopping].map(PhaseEvent::Progress));
        all.extend(Outcome::ALL.map(PhaseEvent::Ended));
        all.extend([PhaseEvent::CancelledHere, PhaseEvent::ExpiredHere, PhaseEvent::RefusedHere, PhaseEvent::GivenUp]);
        all
    }

    #[test]
    fn the_whole_table_of_moves_stands_as_written() {
        let mut table = String::new();
        for from in Phase::ALL {
            for event in events() {
                let to = match from.after(event) {
                    Ok(Some(to)) => to.as_str(),
                    Ok(None) => "-",
                    Err(_) => "ILLEGAL",
                };
                table.push_str(&format!("{from:<12} {:<24} {to}\n", format!("{event:?}")));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn no_event_leaves_a_final_phase() {
        for from in Phase::ALL.into_iter().filter(|phase| phase.is_final()) {
            for event in events() {
                assert!(!matches!(from.after(event), Ok(Some(_))), "{from} {event:?}");
            }
        }
    }

    #[test]
    fn only_the_manager_ends_what_was_never_sent() {
        for outcome in Outcome::ALL {
            assert!(Phase::Queued.after(PhaseEvent::Ended(outcome)).is_err());
        }
        for from in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Queued) {
            assert!(from.after(PhaseEvent::CancelledHere).is_err());
            assert!(from.after(PhaseEvent::ExpiredHere).is_err());
            assert!(from.after(PhaseEvent::RefusedHere).is_err());
        }
    }

    #[test]
    fn names_and_numbers_come_back_as_they_went() {
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse(), Ok(phase));
        }
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_wire(outcome.to_wire()), Some(outcome));
        }
        assert_eq!(Outcome::from_wire(99), None);
    }
}
