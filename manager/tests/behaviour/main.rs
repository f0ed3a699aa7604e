//! Behaviour of the manager as its agents and callers meet it: real store, real sessions, scripted agents.
//!
//! Most tests speak over an in-memory stream; those about TLS and strangers use a real port.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod commands;
mod doors;
mod house;
mod past;
mod pause;
mod peer;
mod sessions;
mod whole;
