//! Hosts whose clock is wrong join, connect and work all the same; where that cannot be, they say by how much it is wrong.

use std::fs;

use anyhow::ensure;
use api::joins::JoinTokenRequest;
use common::clock::OFFSET_VARIABLE;
use common::model::Phase;
use testkit::{House, HouseOptions, soon};

use super::hosts::{config, host, run, token};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
const YEAR: i64 = 365 * DAY;

/// Protocol R-TLS-8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_with_a_wrong_clock_joins_and_works_or_says_by_how_much_it_is_wrong() -> anyhow::Result<()> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    let offset = |name: &str, shift: i64| -> anyhow::Result<String> {
        let file = house.folder().join(format!("{name}.offset"));
        fs::write(&file, shift.to_string())?;
        Ok(file.display().to_string())
    };
    let clocks = [
        ("late-minutes", -10 * MINUTE),
        ("ahead-minutes", 10 * MINUTE),
        ("late-day", -DAY),
        ("ahead-day", DAY),
        // Beyond the end of a fresh certificate, and far before anything was made.
        ("ahead-days", 20 * DAY),
        ("late-years", -9 * YEAR),
    ];
    let mut files = Vec::new();
    for (name, shift) in clocks {
        files.push((name, shift, offset(name, shift)?));
    }
    let far = offset("ahead-years", 10 * YEAR)?;
    for (name, shift, file) in &files {
        let line = token(&house, JoinTokenRequest::default()).await?;
        let mut joining = host(&house, name, &[&line]);
        joining.env(OFFSET_VARIABLE, file);
        let joined = run(joining).await?;
        ensure!(joined.code == Some(0), "{name}: {}", joined.said);
        house.start_agent(name, &[(OFFSET_VARIABLE, file)])?;
        house.connected(name).await?;
        let command = house.shell(name, "true").await?;
        ensure!(house.finished(command.id).await?.phase == Phase::Succeeded, "{name}");
        let says = house.agent_log(name).contains("This host's clock is wrong by so much");
        ensure!(says == (shift.abs() > 5 * MINUTE), "{name}: {}", house.agent_log(name));
    }
    let line = token(&house, JoinTokenRequest::default()).await?;
    let mut joining = host(&house, "ahead-years", &[&line]);
    joining.env(OFFSET_VARIABLE, &far);
    let joined = run(joining).await?;
    ensure!(joined.code == Some(1) && joined.said.contains("this host's clock may be wrong by"), "{joined:?}");
    ensure!(!config(&house, "ahead-years").exists());
    // An agent that was right before: what it heard of the manager in this boot counts, not its clock.
    let first = files.first().map_or("", |(name, ..)| name);
    house.stop_agent(first).await?;
    house.start_agent(first, &[(OFFSET_VARIABLE, &far)])?;
    house.connected(first).await?;
    soon("the word about the clock", async || {
        Ok(house.agent_log(first).contains("This host's clock is wrong by so much").then_some(()))
    })
    .await?;
    house.close().await
}
