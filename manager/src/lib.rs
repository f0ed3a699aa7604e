//! The manager: it holds the truth about commands and agents, serves agents over the link and operators over HTTP.
//!
//! ```text
//! http ─┐                    ┌─► store (SQLite)
//!       ├──► service ────────┼─► ca
//! link ─┘       │            └─► registry ─► sessions
//!               └─ wake ─► fanout ─► registry ─► session ─► agent
//! background: expiry, lost agents, retention, checkpoints of the audit
//! ```
//! Handles go down, events come up, wake-ups go sideways and carry no data. The way down and the way up of a command
//! meet only in the store.

pub mod config;
mod limits;

pub mod app;
pub mod cli;

pub mod http;
pub mod link;
pub mod service;

pub mod registry;

pub mod background;
pub mod fanout;

mod audit;
mod site;

pub mod ca;
pub mod papers;

pub mod metrics;

pub use app::{Ready, RunError, run};
pub use cli::{ManagerArgs, daemon};
