//! The agent: it stays connected to a manager, keeps every command as a directory, and delivers what is in there.
//!
//! ```text
//!            dial, reconnect                   one owner of "what runs here"
//!   manager ◄──── link ──── Session ────► dispatch ────► commands (directories, the truth)
//!                                              │  spawns        ▲
//!                                              └──► shim ───────┘  one process per command, lives on without us
//! ```
//! Files are the truth: whatever happens to this process, the next one reads the directories and goes on.

pub mod app;
pub mod args;
pub mod config;
pub mod limits;

mod clock;
mod dispatch;
mod identity;
mod link;
mod operation;

pub mod commands;
pub mod hold;
pub mod join;
pub mod shim;
pub mod status;

pub use app::{RunError, run};
pub use args as cli;
