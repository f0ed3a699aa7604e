//! The door against a real service on a real store in a temporary folder; the agent's side is played by the store's own
//! methods.

#![expect(clippy::unwrap_used, reason = "tests")]

mod audit;
mod client;
mod document;
mod doors;
mod house;
mod matrix;
mod misuse;
mod options;
mod output;
mod rights;
mod routes;
mod secrets;
mod site;
