//! One verb per file; what they share is how they reach the manager.

mod agent;
mod agents;
mod cancel;
mod certificate;
mod completions;
mod each;
mod ending;
mod events;
mod flags;
mod follow;
mod held;
mod list;
mod logs;
mod op;
mod pause;
mod release;
mod remote;
mod request;
mod run;
mod show;
mod start;
mod status;
mod token;
mod verbs;

pub use certificate::{Written, write as write_certificate};
pub use verbs::execute;
