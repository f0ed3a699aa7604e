//! The connection to a manager: reached, kept, and given up for a reason that decides what happens next.
//!
//! ```text
//!   supervisor ── dial ──► Session ──► dispatch (its one user) ──► End ──► supervisor: reaction, backoff, dial …
//! ```
//! Nothing here knows what a command is.

mod dial;
mod reaction;
mod renewal;
mod session;
mod supervisor;

#[cfg(test)]
pub(crate) mod strangers;

#[cfg(test)]
pub(crate) use dial::greet;
pub(crate) use dial::{DialError, ask, prove, reach};
pub(crate) use session::{End, Incoming, Session};
pub(crate) use supervisor::{Attached, Beginning, Supervisor};
