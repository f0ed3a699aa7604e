//! Why the service refuses: one type for every door, with a stable code and whether asking again can help.

use std::time::Duration;

use site::Problems;
use site::permission::Permission;
use store::StoreError;
use store::types::Scope;

use super::rights::Denied;

/// A refusal or a failure of the service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// What was named does not exist, or the caller may not see it.
    #[error("{what} does not exist")]
    NotFound {
        /// What was looked for, e.g. `agent web1`.
        what: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// The request is wrong in itself.
    #[error("{field}: {text}")]
    Invalid {
        /// Stable code, e.g. `invalid`, `unknown_operation`, `unknown_field`.
        code: &'static str,
        /// Path of the value, e.g. `args.run`.
        field: String,
        /// What is wrong with it.
        text: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// The request does not fit what is there.
    #[error("{text}")]
    Conflict {
        /// Stable code, e.g. `idempotency_key_reused`.
        code: &'static str,
        /// What it collides with.
        text: String,
    },
    /// The caller is known and may not do this.
    #[error("this needs the permission {need}{}", lacking(*.because))]
    Forbidden {
        /// What is needed.
        need: Permission,
        /// What stands in the way.
        because: Denied,
    },
    /// The caller would give away what it does not have itself.
    #[error("nobody gives more than they have, and the caller does not have {what}")]
    GivesMore {
        /// Path of the value.
        field: &'static str,
        /// What it lacks, e.g. `the role deployer`.
        what: String,
    },
    /// A site is broken.
    #[error("the site has mistakes; the first is {}", problems.list().first().map(ToString::to_string).unwrap_or_default())]
    Site {
        /// All of them.
        problems: Problems,
    },
    /// The manager is stopping and takes no new work.
    #[error("the manager is stopping")]
    Draining,
    /// There is no space to record the change.
    #[error("the manager has no space left to record the change")]
    Full,
    /// Too much is waiting.
    #[error("the manager is busy")]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// The checkpoints of the audit cannot be read; the text holds the whole chain.
    #[error("the checkpoints of the audit cannot be read: {0}")]
    Checkpoints(String),
    /// A certificate could not be made.
    #[error("the certificate could not be issued")]
    Certificate(#[source] crate::ca::CaError),
}

impl ServiceError {
    /// The stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Invalid { code, .. } | Self::Conflict { code, .. } => code,
            Self::Forbidden { .. } | Self::GivesMore { .. } => "forbidden",
            Self::Site { .. } => "site_invalid",
            Self::Draining => "draining",
            Self::Full => "store_full",
            Self::Busy { .. } => "busy",
            Self::Store(_) | Self::Checkpoints(_) | Self::Certificate(_) => "internal",
        }
    }

    /// Tells whether the same request can succeed later without anybody changing it.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Draining | Self::Full | Self::Busy { .. } | Self::Store(_))
    }

    /// Makes the error of something that is not there.
    #[must_use]
    pub fn not_found(kind: &str, name: impl std::fmt::Display) -> Self {
        Self::NotFound { what: format!("{kind} {name}"), hint: None }
    }

    /// Makes the error of giving away what one has not.
    #[must_use]
    pub fn gives(field: &'static str, what: impl Into<String>) -> Self {
        Self::GivesMore { field, what: what.into() }
    }

    /// Makes the plain error of a wrong value.
    #[must_use]
    pub fn invalid(field: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Invalid { code: "invalid", field: field.into(), text: text.into(), hint: None }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what, name } => Self::not_found(what, common::escape::text(name)),
            StoreError::UnknownAgent(name) => Self::not_found("agent", name),
            StoreError::KeyReused => Self::Conflict {
                code: "idempotency_key_reused",
                text: "the idempotency key was used for another request".to_owned(),
            },
            StoreError::Conflict { what } => Self::Conflict { code: "conflict", text: what.to_owned() },
            StoreError::OutOfRange { field } => Self::invalid(field, "is out of range"),
            StoreError::Full(_) => Self::Full,
            StoreError::Busy => Self::Busy { retry_after: Duration::from_secs(1) },
            other => Self::Store(other),
        }
    }
}

fn lacking(because: Denied) -> String {
    match because {
        Denied::Credential => ", and the credential has ended or was revoked".to_owned(),
        Denied::Scope(scope) => format!(", which a token of the scope {} never has", scope_name(scope)),
        Denied::Roles => ", which no role of the caller gives here".to_owned(),
    }
}

/// The word for a scope in JSON and texts.
#[must_use]
pub fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Admin => "admin",
        Scope::Run => "run",
        Scope::Read => "read",
    }
}
