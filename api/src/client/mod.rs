//! A typed client of the manager's API: every call has a deadline, calls that may be repeated are repeated when a
//! connection breaks, and streams go on where they were cut.
//!
//! ```text
//! <noun> ─► calls ─► connection (kept and used again) ─► endpoint (TLS or Unix socket)
//! output, events ─► sse ─► a connection of their own, made again when it breaks
//! introduction ─► endpoint, before anything is trusted
//! ```
//! It holds no task of its own: a connection moves only while somebody waits for an answer.

mod calls;
mod connection;
mod endpoint;
mod error;
mod introduction;
mod output;
mod sse;

mod agents;
mod audit;
mod authority;
mod commands;
mod events;
mod joins;
mod operators;
mod site;
mod status;
mod tokens;

pub use audit::AuditExport;
pub use calls::Client;
pub use endpoint::{Address, Endpoint, EndpointError};
pub use error::ClientError;
pub use events::EventStream;
pub use introduction::{ShownAuthority, look, meet};
pub use output::{OutputEvent, OutputStream, RawOutput, RawPiece};

#[cfg(test)]
mod tests;
