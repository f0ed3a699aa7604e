//! `paprika-agent join`: from a token to an agent that a manager knows.
//!
//! ```text
//!   token ─► files: may this host join? ─► key (join.key) ─► enrol: pin checked, then secret and request ─► files ─► service
//! ```
//! The key is made here and never leaves this host. Nothing that is there already is written over, and a join that was cut
//! short anywhere is finished by the next one with the same key.

mod source;

mod files;

mod enrol;
mod service;

mod verb;

pub use verb::main;
