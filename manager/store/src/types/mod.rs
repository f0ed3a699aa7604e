//! Rows as domain records: what the facade takes and gives. No SQL, no wire types, no DTOs.

mod commands;
mod exchange;
mod fleet;
mod history;
mod requests;
mod secrets;
mod site;
mod trust;

pub use commands::{
    Cancel, CancelAnswer, Command, CommandFilter, CommandPage, End, EndError, Evidence, Gap, Pause, PauseAnswer,
    PhaseCounts, Progress, Stream,
};
pub use exchange::{
    AckAnswer, Answered, Appended, Chunk, Due, DueKind, Held, HeldPhase, Import, OutputRead, PauseHeard,
    ProgressReport, Reported, ResultKind, ResultTaken, StreamEnd, Taker, Verdict,
};
pub use fleet::{Actor, Agent, Connect, Identity, Millis, Position};
pub use history::{
    AuditEntry, AuditOutcome, AuditPoint, AuditRow, AuditVerified, Event, EventFilter, NewToken, Pruned, Retention,
    Scope, Token,
};
pub use requests::{Idempotency, Limits, Options, Request, Started, Submit, Submitted};
pub use secrets::{OpenSecrets, SealedSecrets, Secrets};
pub use site::{NewRevision, SiteFile, SiteRevision, SiteStatus};
pub use trust::{
    AgentKey, Authority, JoinClaim, JoinOutcome, JoinRefused, JoinTokenRow, Judge, JudgeAsk, KeyReason, NewAgentKey,
    NewJoinToken, NotAdmitted, OperatorCert, Via, everybody,
};
