//! The door for operators: HTTP over TLS and over a Unix socket. It parses, asks the service, and writes the answer
//! down; it decides nothing.
//!
//! ```text
//! listener ─► connection (TLS, limits, drain) ─► envelope (request id, panics, security headers, problem bodies)
//!          ─► gate (who is it, may they) ─► route (parse, call the service, convert)
//! ```
//! Reading order: how bytes come in (`server`, `places`, `connection`, `stall`, `local`), what surrounds every request (`envelope`,
//! `gate`, `problem`), how requests are read (`extract`, `query`), the routes, and how answers look (`convert`, `output`, `sse`, `body`).

mod connection;
mod local;
mod places;
mod server;
mod stall;

mod envelope;
mod gate;
mod problem;

mod extract;
mod query;

mod convert;
mod routes;

mod body;
mod openapi;
mod output;
mod sse;

pub use openapi::document;
pub use server::{Bound, HttpConfig, ServeError, serve};

#[cfg(test)]
mod tests;
