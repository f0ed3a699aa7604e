//! The shim: one small process per command that starts it, keeps its output, stops it and writes its end.
//!
//! ```text
//! lock ─► cancelled already? ─► fork, held at the door ─► START durable ─► go ─► exec
//!                                                                          │
//!                    wake (requests), output, children, timeout ◄── watch ─┘
//!                                                                          │ all gone, pipes empty
//!                                             streams synced ─► END durable ─► note to the agent
//! ```
//!
//! It lives on when the agent does not: everything it says, it says in files. No runtime, no threads; `spawn` is the
//! only file with unsafe code.

pub mod cgroup;
pub mod launch;
pub mod process;

mod program;
mod users;

mod output;
mod spawn;

mod crew;
mod run;
mod watch;

pub use cgroup::Base;
pub use launch::{ShimCommand, ShimProcess};
pub use run::main;
