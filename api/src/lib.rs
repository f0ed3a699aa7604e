//! The contract between the manager and its operators: what travels over HTTP as JSON, and a typed client for it.
//!
//! Requests refuse fields they do not know; answers may gain fields, so readers of answers ignore what they do not
//! know. This crate holds no rules of the manager: it says how things are written, never what is allowed.
//!
//! Reading order: the nouns ([`commands`], [`agents`], [`joins`], [`tokens`], [`operators`], [`whoami`], [`site`], [`authority`],
//! [`events`], [`audit`], [`status`]), what all of them share ([`page`], [`problem`], [`time`], [`signals`], [`base64`]), and the
//! client (feature `client`).

pub mod agents;
pub mod audit;
pub mod authority;
pub mod commands;
pub mod events;
pub mod joins;
pub mod operators;
pub mod site;
pub mod status;
pub mod tokens;
pub mod whoami;

pub mod base64;
pub mod page;
pub mod problem;
#[cfg(feature = "openapi")]
mod schema;
pub mod signals;
pub mod time;

#[cfg(feature = "client")]
pub mod client;
