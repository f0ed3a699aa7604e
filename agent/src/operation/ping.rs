//! `agent.ping`: proves that the whole path works, durability included, without a process.

use serde_json::json;

use super::Refused;
use super::words::Words;

pub(super) fn check(args: &[u8]) -> Result<(), Refused> {
    if args.is_empty() {
        return Ok(());
    }
    Words::read(args, &[]).map(drop)
}

/// What a ping answers.
pub(crate) fn answer(agent: &str) -> String {
    json!({"pong": true, "agent": agent, "version": env!("CARGO_PKG_VERSION")}).to_string()
}
