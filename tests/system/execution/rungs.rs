//! A house on each rung of the ladder of isolation.

use testkit::ground;
use testkit::{House, HouseOptions};

/// The one agent of most houses here.
pub(super) const AGENT: &str = "web1";
/// All rungs, by the words of the agent's configuration.
pub(super) const ALL: [&str; 4] = ["v2", "v2-freezer", "v1", "none"];

/// What commands and agents show on that rung.
pub(super) fn isolation(rung: &str) -> &'static str {
    if rung == "none" { "best_effort" } else { "cgroup" }
}

pub(super) fn options(rung: &str) -> HouseOptions {
    HouseOptions { cgroup: rung.to_owned(), ..HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&[AGENT]) }
}

/// A house on that rung; none, with the reason told, where the machine does not have it.
pub(super) async fn house(rung: &str, test: &str) -> anyhow::Result<Option<House>> {
    if let Some(reason) = ground::lacks(rung) {
        ground::not_run(env!("CARGO_TARGET_TMPDIR"), &format!("execution::{test}::{rung}"), reason)?;
        return Ok(None);
    }
    House::start(options(rung)).await.map(Some)
}
