//! `paprika-agent status`: what runs on this host, read from the state directory alone. It works while the agent runs
//! and while it does not, changes nothing, and never waits for anybody.
//!
//! ```text
//! about (what the agent said at its start) ─┐
//! commands/ (records, status, segments) ────┼─► look ─► Report ─► show (table or JSON)
//! kept/, quarantine/, reserve, the disk ────┘
//! ```

pub(crate) mod about;

mod look;
mod report;
mod show;

mod verb;

pub use verb::main;
