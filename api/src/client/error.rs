//! Why a call of the client failed.

use std::time::Duration;

use crate::problem::Problem;

/// A cause from below.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody could be reached: the manager does not run, or the address is wrong.
    #[error("the manager at {address} cannot be reached")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The manager was reached and is not trusted, or is no manager.
    #[error("no trusted connection to {address}")]
    Untrusted {
        /// Where it was looked for.
        address: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection to {address} broke")]
    Lost {
        /// Where it led.
        address: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// No answer came in time.
    #[error("the manager at {address} did not answer within {limit:?}")]
    Deadline {
        /// Where it was looked for.
        address: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The manager said no.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is not what this version of the client understands.
    #[error("the answer to {what} cannot be understood")]
    Malformed {
        /// Which call.
        what: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The request cannot be written down.
    #[error("the request cannot be made")]
    Invalid(#[source] Cause),
}

impl ClientError {
    /// What the manager said, when it said no.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// Tells whether the manager could not be reached at all, or was lost.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Untrusted { .. } | Self::Lost { .. } | Self::Deadline { .. })
    }

    /// Tells whether the same call may succeed on another connection.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Deadline { .. } => true,
            Self::Problem(problem) => problem.retryable,
            Self::Untrusted { .. } | Self::Malformed { .. } | Self::Invalid(_) => false,
        }
    }
}
