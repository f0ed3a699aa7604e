//! System tests: the one binary as people use it, daemons and all.
//!
//! Each test has a house of its own (a folder, free ports, processes it started and ends by their ids) and waits for
//! things to become true, never for time to pass.

#![expect(clippy::unwrap_used, reason = "tests")]

mod adoption;
mod attacks;
mod bad_specs;
mod burst;
mod canaries;
mod cancel;
mod cli;
mod clock;
mod crash;
mod curl;
mod cuts;
mod dev;
mod disk_full;
mod enrol;
mod examples;
mod execution;
mod facts;
mod flood;
mod house;
mod limits;
mod login;
mod misuse;
mod nspawn;
mod output;
mod python_agent;
mod restore;
mod rivals;
mod run;
mod tidy;
mod trust_cli;
mod zoo;
