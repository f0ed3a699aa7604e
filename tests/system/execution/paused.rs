//! A paused command stays paused whoever dies and comes back, its time stands still, and it goes on as if nothing was.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use api::commands::{Command, CommandRequest};
use common::config::HumanDuration;
use common::model::{Phase, StreamName};
use testkit::{House, HouseOptions, wait_for};
use tokio::time::Instant;

const AGENTS: [&str; 2] = ["web1", "web2"];
/// Shorter than the pause, and longer than the command runs without it on a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_secs(6);

/// Counts until the file is there.
fn counting(house: &House, timeout: Option<Duration>) -> CommandRequest {
    let go = house.folder().join("go");
    let line = format!("i=0; while [ ! -e {} ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 9", go.display());
    CommandRequest { timeout: timeout.map(HumanDuration), ..house.shell_request(&line) }
}

fn length(command: &Command) -> u64 {
    command.streams.get(&StreamName::Stdout).map_or(0, |stream| stream.length)
}

async fn grows(house: &House, id: u64) -> anyhow::Result<()> {
    let before = length(&house.client().command(id).await?);
    house.command_when(id, "more output", |command| length(command) > before).await.map(drop)
}

/// Whoever came back, the one is paused with as many bytes as before, while the other goes on.
async fn still_paused(house: &House, paused: u64, bytes: u64, other: u64) -> anyhow::Result<()> {
    for agent in AGENTS {
        house.connected(agent).await?;
    }
    grows(house, other).await?;
    let command = house.client().command(paused).await?;
    ensure!(command.phase == Phase::Paused && length(&command) == bytes, "{bytes} bytes before: {command:?}");
    ensure!(command.pause.as_ref().is_some_and(|pause| pause.paused && !pause.pending), "{command:?}");
    Ok(())
}

async fn survives(cgroup: &str) -> anyhow::Result<()> {
    let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&AGENTS);
    options.cgroup = cgroup.to_owned();
    let mut house = House::start(options).await?;
    let [first, second] = AGENTS;
    let paused = house.client().start(&first.parse()?, &counting(&house, Some(TIMEOUT))).await?.id;
    let other = house.client().start(&second.parse()?, &counting(&house, None)).await?.id;
    grows(&house, paused).await?;
    grows(&house, other).await?;
    let began = Instant::now();
    house.client().pause(paused).await?;
    house.command_when(paused, "it to be paused", |command| command.phase == Phase::Paused).await?;
    // What was under way when it was held arrives with the next restart at the latest.
    house.stop_agent(first).await?;
    house.start_agent(first, &[])?;
    house.connected(first).await?;
    grows(&house, other).await?;
    let bytes = length(&house.client().command(paused).await?);

    house.kill_agent(first)?;
    house.start_agent(first, &[])?;
    still_paused(&house, paused, bytes, other).await?;
    house.kill_manager()?;
    house.start_manager(&[]).await?;
    still_paused(&house, paused, bytes, other).await?;
    house.stop_manager().await?;
    house.kill_agent(first)?;
    house.start_manager(&[]).await?;
    house.start_agent(first, &[])?;
    still_paused(&house, paused, bytes, other).await?;
    wait_for(PAUSE * 2, "more than its timeout", async || Ok((began.elapsed() > PAUSE).then_some(()))).await?;
    still_paused(&house, paused, bytes, other).await?;

    house.client().resume(paused).await?;
    house.command_when(paused, "it to go on", |command| command.phase == Phase::Running).await?;
    grows(&house, paused).await?;
    fs::write(house.folder().join("go"), "")?;
    for id in [paused, other] {
        let command = house.finished(id).await?;
        ensure!(command.phase == Phase::Failed && command.exit_code == Some(9), "{cgroup}: {command:?}");
        ensure!(command.flags.is_empty(), "{cgroup}: {:?}", command.flags);
        let text = String::from_utf8(house.output(id, StreamName::Stdout).await?)?;
        let expected: String = (1..=text.lines().count()).map(|number| format!("{number}\n")).collect();
        ensure!(text == expected, "{cgroup}: not each number once: {text}");
    }
    house.no_survivors().await?;
    house.close().await
}

#[tokio::test]
async fn a_paused_command_is_paused_still_after_restarts_of_agent_and_manager() -> anyhow::Result<()> {
    survives("auto").await
}

#[tokio::test]
async fn where_there_are_no_cgroups_it_is_too() -> anyhow::Result<()> {
    survives("none").await
}
