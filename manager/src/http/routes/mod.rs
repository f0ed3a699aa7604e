//! The routes, one file for each noun. Handlers parse, call the service and convert; nothing else.

mod agents;
mod audit;
mod authority;
mod commands;
mod docs;
mod events;
mod health;
mod joins;
mod operators;
mod output;
mod site;
mod table;
mod tokens;
mod whoami;

pub(super) use table::{app, table};
