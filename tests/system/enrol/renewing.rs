//! Certificates that live for half a minute, under commands: all are renewed, none of them is noticed. And what becomes of
//! a host that was away while its certificate ended.

use std::time::Duration;

use anyhow::{Context, ensure};
use api::commands::Command;
use api::joins::JoinTokenRequest;
use common::model::{Phase, StreamName};
use common::tls::{load_chain, read_leaf};
use testkit::{House, HouseOptions, wait_for};
use tokio::time::Instant;

use super::hosts::{config, join, token};

/// The shortest life that a manager allows.
const LIFE: Duration = Duration::from_secs(30);
/// Renewals in one run, over all agents together.
const RENEWALS: usize = 12;
/// Asks for more of them (docs/testing.md).
const ASKED: &str = "PAPRIKA_RENEWALS";
/// Renewals of one agent in a longer run: a thousand mean a hundred agents.
const EACH: usize = 10;
/// Agents in a short run.
const AGENTS: usize = 4;
/// What an agent says of a session that ended because of a renewal.
const RENEWED: &str = "the certificate was renewed";

async fn house(agents: usize) -> anyhow::Result<(House, Vec<String>)> {
    let options = HouseOptions { certificate_valid: Some(LIFE), ..HouseOptions::new(env!("CARGO_BIN_EXE_paprika")) };
    let mut house = House::start(options).await?;
    let uses = Some(u32::try_from(agents)?);
    let line = token(&house, JoinTokenRequest { uses, ..JoinTokenRequest::default() }).await?;
    let names: Vec<_> = (0..agents).map(|number| format!("host{number}")).collect();
    for name in &names {
        let joined = join(&house, name, &line).await?;
        ensure!(joined.code == Some(0), "{name}: {}", joined.said);
        house.start_agent(name, &[])?;
    }
    for name in &names {
        house.connected(name).await?;
    }
    Ok((house, names))
}

fn renewals(house: &House, name: &str) -> usize {
    house.agent_log(name).matches(RENEWED).count()
}

/// A command that succeeded, with everything it wrote.
async fn is_whole(house: &House, name: &str, command: &Command, expected: &[u8]) -> anyhow::Result<()> {
    let command = house.finished_within(command.id, LIFE * 2).await.with_context(|| name.to_owned())?;
    ensure!(command.phase == Phase::Succeeded, "{name}: {command:?}");
    let written = house.output(command.id, StreamName::Stdout).await?;
    ensure!(written == expected, "{name}: {} bytes of {}", written.len(), expected.len());
    Ok(())
}

/// Protocol R-RENEW-3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_under_commands_and_no_command_is_lost() -> anyhow::Result<()> {
    let wanted = std::env::var(ASKED).ok().map_or(Ok(RENEWALS), |text| text.parse())?;
    let agents = if wanted > RENEWALS { wanted.div_ceil(EACH) } else { AGENTS };
    let each = wanted.div_ceil(agents);
    let (house, names) = house(agents).await?;
    // One that writes a line each second through all renewals, and short ones all the time.
    let lines = LIFE.as_secs() / 2 * u64::try_from(each)? + 5;
    let line = format!("for i in $(seq {lines}); do echo line $i; sleep 1; done");
    let expected: String = (1..=lines).map(|number| format!("line {number}\n")).collect();
    let mut long = Vec::new();
    for name in &names {
        long.push(house.shell(name, &line).await?);
    }
    let bound = Instant::now() + LIFE * u32::try_from(each)? + LIFE;
    let mut short = 0;
    while names.iter().map(|name| renewals(&house, name)).sum::<usize>() < wanted {
        ensure!(Instant::now() < bound, "{:?}", names.iter().map(|name| renewals(&house, name)).collect::<Vec<_>>());
        let mut round = Vec::new();
        for name in &names {
            round.push(house.shell(name, "echo short").await?);
        }
        for (name, command) in names.iter().zip(&round) {
            is_whole(&house, name, command, b"short\n").await?;
        }
        short += round.len();
    }
    ensure!(short > wanted, "only {short} commands met {wanted} renewals");
    for (name, command) in names.iter().zip(&long) {
        is_whole(&house, name, command, expected.as_bytes()).await?;
        let log = house.agent_log(name);
        ensure!(!log.contains("is not used") && !log.contains("refused to renew"), "{name}: {log}");
    }
    // Whatever an agent was renewed to, it is what it joined as. One of the slots may be on its way to the next one.
    for name in &names {
        let first = load_chain(&config(&house, name).with_file_name("cert.pem"))?;
        let identity = read_leaf(first.first().context("empty")?)?.identity;
        let slots = house.state_dir(name).join("identity");
        let filled = ["a", "b"].iter().filter_map(|slot| load_chain(&slots.join(slot).join("cert.pem")).ok());
        let leaves: Vec<_> = filled.filter_map(|chain| read_leaf(chain.first()?).ok()).collect();
        ensure!(!leaves.is_empty() && leaves.iter().all(|leaf| leaf.identity == identity), "{name}: {leaves:?}");
    }
    house.close().await
}

/// Protocol R-JOIN-6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_away_while_its_certificate_ended_comes_back_by_itself() -> anyhow::Result<()> {
    let (mut house, names) = house(1).await?;
    let name = names.first().context("no agent")?;
    let command = house.shell(name, "echo before; sleep 40; echo after").await?;
    house.command_when(command.id, "the command to run", |command| command.phase == Phase::Running).await?;
    house.kill_agent(name)?;
    let cert = config(&house, name).with_file_name("cert.pem");
    let ends = read_leaf(load_chain(&cert)?.first().context("empty")?)?.not_after;
    wait_for(LIFE * 2, "the end of the certificate", async || {
        Ok((common::clock::unix_ms() > u64::try_from(ends.as_millis())? + 1_000).then_some(()))
    })
    .await?;
    house.start_agent(name, &[])?;
    house.connected(name).await?;
    ensure!(house.agent_log(name).contains("The certificate had ended; a new one was issued"));
    is_whole(&house, name, &command, b"before\nafter\n").await?;
    house.close().await
}
