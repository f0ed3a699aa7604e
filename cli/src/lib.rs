//! The operator's command line: what `paprika run`, `logs`, `agents` and the other client verbs do.
//!
//! ```text
//! args ──► context (which manager, which credential) ──► commands/<verb> ──► api client ──► output
//!                                                             │
//!                                                             └──► error: kind, hint, exit code
//! ```
//! The root binary owns the process: it parses, calls [`execute`] and turns the returned code into its own. This crate
//! never exits, never starts a daemon and never links the manager. [`process`] is for `paprika dev`, whose children are
//! agents.

pub mod process;
pub mod usage;

mod args;
mod commands;
mod context;
mod context_file;
mod error;
mod output;

pub use args::{Client, Globals};
pub use commands::{Written, execute, write_certificate};
pub use error::{Failure, Kind};
