//! What this agent can do, by name, and whether arguments make sense. No side effects: running is the shim's work.

mod understand;

mod ping;
mod run;
mod script;

mod guards;
mod words;

pub(crate) use ping::answer as ping_answer;
pub(crate) use understand::{Operation, Refused, understand};
