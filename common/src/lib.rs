//! The contract between agent and manager, and the floor both stand on.
//!
//! Something enters this crate only if agent **and** manager use it. It never sees axum, SQL or tonic, and its
//! protocol core (`frame`, `handshake`, `session`, `credit`, `lanes`, `liveness`) does no I/O: bytes and instants go
//! in, frames and decisions come out.
//!
//! Reading order:
//! the words ([`id`], [`model`], [`limits`], [`version`]), the protocol ([`wire`], [`frame`], [`handshake`],
//! [`session`], [`credit`], [`lanes`], [`liveness`]), its shell ([`link`], [`tls`], [`pin`],
//! [`join_token`]), the floor (the rest).

pub mod id;
pub mod limits;
pub mod model;
pub mod version;

mod census;
pub mod credit;
pub mod frame;
pub mod handshake;
pub mod lanes;
pub mod liveness;
pub mod session;
pub mod wire;

pub mod join_token;
pub mod link;
pub mod pin;
pub mod tls;

pub mod backoff;
pub mod clock;
pub mod config;
pub mod cores;
pub mod crash;
pub mod durable;
pub mod error;
pub mod escape;
pub mod seal;
pub mod shutdown;
pub mod suggest;
pub mod telemetry;
pub mod user;
