//! The dispatcher against a scripted manager: real directories, a real session over a pipe in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod actor;
mod bed;
mod deaf;
mod delivery;
mod faults;
mod intake;
mod keeping;
mod past;
mod pausing;
mod room;
mod secrets;
mod waiting;
