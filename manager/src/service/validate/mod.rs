//! Is a request right in itself? Pure: no store, no clock.
//!
//! Reading order: the whole (`request`), what the operation takes (`arguments`), and how the command runs (`posture`).

mod arguments;
mod posture;
mod request;
#[cfg(test)]
mod tests;

pub(crate) use arguments::GUARDS;
pub use arguments::{AGENT_PING, COMMAND_RUN, OPERATIONS, SCRIPT_RUN};
pub use request::{agents, expiry, grace, reason, request, roles, token_name};

/// Nothing, or the first thing that is wrong.
type Checked = Result<(), super::error::ServiceError>;
