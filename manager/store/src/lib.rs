//! Persistence of the manager behind one facade: what was accepted, what was sent, what came back.
//!
//! [`Store`] is the only door. It speaks in the records of [`types`] and fails with [`StoreError`]; which database
//! stands behind it, its SQL and its threads stay inside. The conformance suite under `tests/` holds for every back end.
//!
//! ```text
//! callers ──► Store (facade) ──► sqlite: main.write ─► one writer thread, grouped commits ─► paprika.db
//!                │                       output.write ─► one writer thread, grouped commits ─► output.db
//!                │                       read ─────────► pool of reader connections (both files)
//!                └── watches: wake-ups after each commit; they carry no content
//! ```

pub mod types;

mod error;
mod limits;
mod store;
mod watch;

mod sqlite;

mod revocations;
mod text_or_bytes;

pub use error::StoreError;
pub use store::{Appending, Store};
pub use watch::CommandWatch;
