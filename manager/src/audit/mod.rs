//! What makes a cut or rewritten audit visible: signed checkpoints of its head, kept outside of the database.
//!
//! ```text
//! store: rows, each with the hash of the one before ──► head (number, hash)
//!                                                         │ every minute or thousand rows
//!                                                         ▼
//! audit.checkpoints: one signed line for each, over the line before        audit.key signs, mode 0600
//! ```
//! Whoever can write the database can rewrite the chain from any row on; he cannot sign. Rows are the store's; here are
//! only the checkpoints and the judgement over both.

mod checkpoint;
mod file;
mod keeper;
mod verdict;

pub(crate) use checkpoint::{Signer, hex};
pub(crate) use file::{CheckpointFile, CheckpointsError};
pub(crate) use keeper::Keeper;
