//! `agent.ping`: proves that the whole path works, durability included, without a process.

use serde::Deserialize;
use serde_json::json;

use super::Refused;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

pub(super) fn check(args: &[u8]) -> Result<(), Refused> {
    if args.is_empty() {
        return Ok(());
    }
    serde_json::from_slice::<NoArgs>(args)
        .map(|NoArgs {}| ())
        .map_err(|error| Refused::new("invalid_args", format!("args: {error}")))
}

/// What a ping answers.
pub(crate) fn answer(agent: &str) -> String {
    json!({"pong": true, "agent": agent, "version": env!("CARGO_PKG_VERSION")}).to_string()
}
