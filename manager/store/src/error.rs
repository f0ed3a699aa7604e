//! Why the store did not do what it was asked to; one type, because every method can meet a full or broken disk.

use std::path::PathBuf;

use common::id::{CommandId, Name};
use common::model::IllegalMove;

/// Why a call failed. Nothing of the call has taken place, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing of this kind and name exists.
    #[error("no {what} {name}")]
    NotFound { what: &'static str, name: String },
    /// A submit names an agent that does not exist.
    #[error("no agent {0}")]
    UnknownAgent(Name),
    /// A key was used before for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// A session speaks for an older bearer of the name.
    #[error("the generation of {0} is not the present one")]
    Fenced(Name),
    /// Nobody of this name is served until an operator accepts one.
    #[error("agent {agent} is quarantined: {reason}")]
    Quarantined { agent: Name, reason: String },
    /// An agent speaks of a command of another agent.
    #[error("the command belongs to another agent")]
    NotMine,
    /// The object is not in a condition that allows this.
    #[error("{what}")]
    Conflict { what: &'static str },
    /// Output does not join what is stored.
    #[error("output of command {command} must go on at offset {expected}")]
    Hole { command: CommandId, expected: u64 },
    /// An event has no place in the life of the command.
    #[error("illegal move of command {command}")]
    IllegalMove {
        command: CommandId,
        #[source]
        source: IllegalMove,
    },
    /// A value is outside what can be stored.
    #[error("{field} is out of range")]
    OutOfRange { field: &'static str },
    /// The chain of the audit does not hold at this row.
    #[error("the audit does not hold from row {seq}")]
    AuditBroken { seq: u64 },
    /// The disk is full, or refuses to write.
    #[error("the disk takes no more")]
    Full(#[source] Option<rusqlite::Error>),
    /// Too much waits already; later it may work.
    #[error("too many writes are waiting")]
    Busy,
    /// What is stored cannot be read back.
    #[error("the stored {what} is damaged")]
    Corrupt {
        what: &'static str,
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// The schema was written by a newer release.
    #[error("the schema of {} is version {found}, this release knows {known}", path.display())]
    NewerSchema { path: PathBuf, found: u32, known: u32 },
    /// A migration that was applied is not the one this release carries.
    #[error("migration {version} of {} was changed after it was applied", path.display())]
    ChangedMigration { path: PathBuf, version: u32 },
    /// A file beside the database cannot be made, read or written.
    #[error("cannot use {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The store is closed or closing, or its last commit failed in a way that says nothing about the next.
    #[error("the store is not available")]
    Unavailable(#[source] Option<rusqlite::Error>),
    /// The database refused a statement.
    #[error("the database refused a statement")]
    Sql(#[source] rusqlite::Error),
}

impl StoreError {
    /// Tells whether the same call may work later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Busy | Self::Unavailable(_))
    }

    /// Makes the error for something that does not exist.
    pub(crate) fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    /// Makes the error for content that cannot be read back.
    pub(crate) fn corrupt(what: &'static str) -> Self {
        Self::Corrupt { what, source: None }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as C;
        match error.sqlite_error_code() {
            // A disk without room shows as either, depending on which file hits the end first.
            Some(C::DiskFull | C::SystemIoFailure) => Self::Full(Some(error)),
            Some(C::DatabaseBusy | C::DatabaseLocked) => Self::Busy,
            Some(C::DatabaseCorrupt | C::NotADatabase) => Self::Corrupt { what: "database", source: Some(error) },
            Some(C::CannotOpen | C::ReadOnly) => Self::Unavailable(Some(error)),
            _ => Self::Sql(error),
        }
    }
}
