//! Cgroups of commands: where they are made, and what is done with them.
//!
//! ```text
//! <v2 mount>/…/<uid>/shim                      the writer of the result: neither kill nor OOM of the work takes it
//!                   /work                      everything the command runs
//! <v1 freezer>/paprika-commands/<agent>/<uid>/work   the same where there is no version 2; the shim stays outside
//! <v1 controller>/paprika-commands/<agent>/<uid>     limits that version 2 does not have here; made when they are asked for
//! ```
//! Nobody writes a pid into `cgroup.procs` of version 2 on the usual way: that takes a lock of the whole kernel and
//! several milliseconds. Processes are born in their cgroup (`spawn`).
//!
//! `mounts` says what the host has, `base` chooses, `pen` stops and kills, `limits` and `usage` talk to controllers.

mod mounts;
mod tree;

mod base;
mod pen;

mod limits;
mod usage;

pub use base::{Base, Controller, Place, Rung, Tree, remove, sweep};
pub(crate) use limits::limit;
pub use pen::{Pen, kill_all};
pub use tree::populated;
pub(crate) use tree::{is_alive, join, make_leaf, open, remove_tree};
pub(crate) use usage::{Oom, cpu_us, io_bytes, memory_peak, tasks_peak};

#[cfg(test)]
mod tests;
