//! The embedded back end: two SQLite files, one writer thread each, and a pool of readers.
//!
//! `paprika.db` (synchronous FULL) holds everything but bytes; `output.db` (synchronous NORMAL, synced on demand) holds
//! bytes. Only the writer threads write; each drains what waits, runs every change in its own savepoint and commits
//! them together. Nothing outside this module knows SQL.

mod database;
mod migrate;
mod open;
mod readers;
mod writer;

mod codes;
mod rows;

mod agents;
mod audit;
mod backup;
mod cancel;
mod commands;
mod dispatch;
mod events;
mod expiry;
mod idempotency;
mod joins;
mod keys;
mod meta;
mod moves;
mod operators;
mod output;
mod pause;
mod reconcile;
mod restored;
mod results;
mod retention;
mod rights;
mod sessions;
mod site;
mod submit;
mod tokens;

pub(crate) use database::Database;
pub use output::Appending;
