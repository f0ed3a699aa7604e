//! The routes, one file for each noun. Handlers parse, call the service and convert; nothing else.

mod agents;
mod audit;
mod commands;
mod docs;
mod events;
mod health;
mod output;
mod table;
mod tokens;

pub(super) use table::{app, table};
