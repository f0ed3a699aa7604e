//! The dispatcher against a scripted manager: real directories, a real session over a pipe in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bed;
mod delivery;
mod faults;
mod intake;
mod past;
mod room;
