//! What may be done, by whom: the only layer that the HTTP API and the link call.
//!
//! It checks the caller, checks the request, lets the store do the change together with its audit row, and wakes who
//! must look again. It knows neither sockets nor SQL.
//!
//! Reading order: who calls ([`callers`]), the whole ([`core`]), then one file per noun.

pub mod callers;
pub mod core;
pub mod error;
mod permits;
mod refusals;
pub mod rights;
mod snapshot;

mod admit;

pub mod agents;
pub mod audit;
pub mod authority;
pub mod commands;
pub mod events;
pub mod joins;
pub mod operators;
pub mod output;
mod renewals;
pub mod seals;
pub mod sessions;
pub mod site;
pub mod status;
mod time;
pub mod tokens;
pub mod validate;

pub use agents::{AgentView, IssuedCertificate};
pub use authority::AuthorityView;
pub use callers::Caller;
pub use commands::{CancelWish, CommandList, CommandView};
pub use core::{Parts, Service, Settings};
pub use error::ServiceError;
pub use joins::JoinWish;
pub use operators::{IssuedOperator, OperatorView};
pub(crate) use refusals::Refused;
pub use rights::{About, Credential, Credentials, Denied, Rights};
pub use status::Status;
