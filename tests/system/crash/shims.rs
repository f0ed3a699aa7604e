//! Shims die: each command ends once, with evidence, and leaves nothing running.

use anyhow::{Context, ensure};
use api::commands::Command;
use common::model::{Phase, StreamName};
use testkit::checker::{Interruptions, Witness, breaches};
use testkit::effects::Effects;
use testkit::{House, HouseOptions, survivors};

use super::load::CALM;
use super::points::{self, CRASH};

const AGENT: &str = "web1";

async fn house() -> anyhow::Result<House> {
    House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&[AGENT])).await
}

/// Starts a command that leaves its session, and waits until it has written something.
async fn running(house: &House) -> anyhow::Result<Command> {
    let id = house.shell(AGENT, "echo begun; setsid sleep 1000 & sleep 1000").await?.id;
    let written = |command: &Command| command.streams.values().any(|stream| stream.length > 0);
    house.command_when(id, "its output", written).await
}

/// Kills the shim of a command, found by the command's folder among its arguments.
fn kill_shim(command: &Command) -> anyhow::Result<()> {
    let folder = format!("commands/{}", command.uid);
    let shims = survivors::with_argument(&folder);
    ensure!(!shims.is_empty(), "no shim in {folder}");
    survivors::end(&shims);
    Ok(())
}

/// It ended as interrupted, says why, and nothing of it is left.
async fn interrupted(house: &House, id: u64) -> anyhow::Result<()> {
    let ended = house.finished_within(id, CALM).await?;
    ensure!(ended.phase == Phase::Interrupted && ended.error.is_some(), "{ended:?}");
    ensure!(house.output(id, StreamName::Stdout).await? == b"begun\n");
    house.no_survivors().await
}

#[tokio::test]
async fn a_shim_that_dies_at_any_point_leaves_one_end_with_evidence() -> anyhow::Result<()> {
    let mut house = house().await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    let mut witnesses = Vec::new();
    for (number, point) in points::names("shim.")?.into_iter().enumerate() {
        // The agent hands its point on to the shims it starts; it has no such point itself.
        house.kill_agent(AGENT)?;
        house.start_agent(AGENT, &[(CRASH, &point)])?;
        house.connected(AGENT).await?;
        for part in 0..2 {
            let tag = format!("s{number}-{part}");
            let command = house.shell(AGENT, &format!("{}; echo {tag}", effects.line(&tag))).await?;
            let command = house.finished_within(command.id, CALM).await.with_context(|| point.clone())?;
            // A shim that has written its end has done its work; any other death shows.
            ensure!(
                command.phase != Phase::Succeeded || point.starts_with("shim.end.after"),
                "{point} was not reached: {command:?}"
            );
            let stdout = house.output(command.id, StreamName::Stdout).await?;
            witnesses.push(Witness { expected: format!("{tag}\n").into_bytes(), tag, command, stdout });
        }
    }
    let found = breaches(&witnesses, &effects.counts()?, Interruptions::Allowed);
    ensure!(found.is_empty(), "{}", found.join("\n"));
    house.close().await
}

#[tokio::test]
async fn a_command_whose_shim_is_killed_is_not_left_behind() -> anyhow::Result<()> {
    let house = house().await?;
    let command = running(&house).await?;
    kill_shim(&command)?;
    interrupted(&house, command.id).await?;
    house.close().await
}

#[tokio::test]
async fn the_same_where_there_are_no_cgroups() -> anyhow::Result<()> {
    let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&[AGENT]);
    options.cgroup = "none".to_owned();
    let house = House::start(options).await?;
    // What leaves its session here is beyond reach once the shim is gone: only what START names can be found.
    let id = house.shell(AGENT, "echo begun; sleep 1000").await?.id;
    let written = |command: &Command| command.streams.values().any(|stream| stream.length > 0);
    let command = house.command_when(id, "its output", written).await?;
    kill_shim(&command)?;
    interrupted(&house, id).await?;
    house.close().await
}

#[tokio::test]
async fn an_agent_that_dies_while_it_ends_the_command_of_a_dead_shim_ends_it_the_next_time() -> anyhow::Result<()> {
    let mut house = house().await?;
    for point in points::names("agent.end.")? {
        let command = running(&house).await?;
        house.kill_agent(AGENT)?;
        kill_shim(&command)?;
        house.start_agent(AGENT, &[(CRASH, &point)])?;
        house.agent(AGENT)?.crashed(CALM).await.with_context(|| point.clone())?;
        house.start_agent(AGENT, &[])?;
        interrupted(&house, command.id).await.with_context(|| point.clone())?;
    }
    house.close().await
}
