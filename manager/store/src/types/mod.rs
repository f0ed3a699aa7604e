//! Rows as domain records: what the facade takes and gives. No SQL, no wire types, no DTOs.

mod commands;
mod exchange;
mod fleet;
mod history;
mod requests;

pub use commands::{
    Cancel, CancelAnswer, Command, CommandFilter, CommandPage, End, EndError, Evidence, Gap, Pause, PauseAnswer,
    PhaseCounts, Progress, Stream,
};
pub use exchange::{
    AckAnswer, Answered, Appended, Chunk, Due, DueKind, Held, HeldPhase, Import, OutputRead, PauseHeard,
    ProgressReport, Reported, ResultKind, ResultTaken, StreamEnd, Taker, Verdict,
};
pub use fleet::{Actor, Agent, Connect, Identity, Millis, Position};
pub use history::{AuditEntry, AuditOutcome, AuditRow, Event, EventFilter, NewToken, Pruned, Retention, Scope, Token};
pub use requests::{Idempotency, Limits, Options, Request, Started, Submit, Submitted};
