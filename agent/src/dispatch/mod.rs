//! The one owner of "what runs here": it takes what the manager says, has it made durable, started and watched, and
//! delivers what the directories hold until the manager has it.
//!
//! ```text
//!  Session ──frame──► incoming ─┐                         ┌─► jobs (blocking pool) ──► done ─┐
//!  notify FIFO, shim gone ──────┼─► Dispatcher: apply() ──┤                                  ├─► next()
//!  timers ──────────────────────┘        │                └─► deliver ──► Session            │
//!                                        └──────────────────────◄────────────────────────────┘
//! ```
//! Nothing in memory is needed: killed at any moment, the next start reads the directories and goes on.

mod admission;
mod places;
mod ship;
mod table;

mod burial;
mod jobs;
mod notes;
mod scan;

mod again;
mod deaf;
mod deliver;
mod dispatcher;
mod done;
mod incoming;
mod past;
mod pausing;
mod reconcile;
mod waiting;

#[cfg(test)]
mod tests;

pub(crate) use dispatcher::{DispatchError, Dispatcher, Parts};
pub(crate) use jobs::Home;
