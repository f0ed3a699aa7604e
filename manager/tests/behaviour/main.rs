//! Behaviour of the manager as its agents and callers meet it: real store, real sessions, scripted agents.
//!
//! Most tests speak over an in-memory stream; those about TLS and strangers use a real port.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod commands;
mod doors;
mod foreign;
mod hosts;
mod house;
mod joins;
mod operators;
mod past;
mod pause;
mod peer;
mod renewals;
mod rights;
mod rotation;
mod secrets;
mod sessions;
mod whole;
