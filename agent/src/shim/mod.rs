//! The shim: one small process per command that starts it, keeps its output, stops it and writes its end.
//!
//! ```text
//! lock ─► cancelled already? ─► fork, held at the door ─► START durable ─► go ─► exec
//!                                  ▲    (guards first, then the main process)     │
//!                                  └──────────── needed: the next one ◄───────────┤
//!                    wake (requests), output, children, timeout, pause ◄── watch ─┘
//!                                                                            │ all gone, pipes empty
//!                                               streams synced ─► END durable ─► note to the agent
//! ```
//!
//! It lives on when the agent does not: everything it says, it says in files. No runtime, no threads; `spawn` and one
//! line of `signals` are the only unsafe code.

pub mod cgroup;
pub mod launch;
pub mod process;

pub(crate) mod ask;
mod guards;
mod posture;
mod program;
mod script;
mod users;
pub(crate) mod wakeful;

mod output;
mod pace;
mod prepare;
mod spawn;

mod crew;
mod ending;
mod fence;
mod notifier;
mod run;
mod signals;
mod verdict;
mod watch;

pub use cgroup::Base;
pub use launch::{ShimCommand, ShimProcess};
pub use run::main;
