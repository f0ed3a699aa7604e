//! What the service says, as JSON, and what JSON says, for the service: each message is converted here and once.

pub(super) mod agents;
pub(super) mod authority;
pub(super) mod commands;
pub(super) mod events;
pub(super) mod joins;
pub(super) mod operators;
pub(super) mod site;
pub(super) mod status;
pub(super) mod tokens;
pub(super) mod whoami;
