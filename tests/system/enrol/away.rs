//! Hosts that were away for a day, for weeks, for a year: what becomes of their certificate, and of what they did meanwhile.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use api::audit::AuditQuery;
use api::joins::JoinTokenRequest;
use common::model::{Phase, StreamName};
use common::tls::{load_chain, read_leaf};
use testkit::pki::{Leaf, Pki};
use testkit::{House, HouseOptions, soon};

use super::hosts::{config, host, join, run, token};

const DAY: i64 = 24;
const NAME: &str = "web1";

/// An agent whose last command ended while it was away.
async fn house() -> anyhow::Result<(House, u64)> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    let line = token(&house, JoinTokenRequest::default()).await?;
    let joined = join(&house, NAME, &line).await?;
    ensure!(joined.code == Some(0), "{}", joined.said);
    house.start_agent(NAME, &[])?;
    house.connected(NAME).await?;
    let go = house.folder().join("go");
    let line = format!("while [ ! -e {} ]; do sleep 0.02; done; echo done", go.display());
    let command = house.shell(NAME, &line).await?;
    house.command_when(command.id, "the command to run", |command| command.phase == Phase::Running).await?;
    house.stop_agent(NAME).await?;
    fs::write(go, "")?;
    Ok((house, command.id))
}

/// Lets the certificate of the host be one that ended long ago, with the same key.
fn age(house: &House, begins_in_hours: i64, ends_in_hours: i64) -> anyhow::Result<()> {
    let cert = config(house, NAME).with_file_name("cert.pem");
    let identity = read_leaf(load_chain(&cert)?.first().context("empty")?)?.identity;
    let leaf = Leaf {
        begins_in_hours,
        ends_in_hours,
        ..Leaf::agent(&identity.cluster, &identity.name, identity.generation.0)
    };
    let key = fs::read_to_string(config(house, NAME).with_file_name("key.pem"))?;
    Ok(fs::write(cert, Pki::of_manager(&house.manager_dir())?.reissue(&leaf, &key)?)?)
}

async fn its_result_arrives(house: &House, id: u64) -> anyhow::Result<()> {
    let command = house.finished(id).await?;
    ensure!(command.phase == Phase::Succeeded, "{command:?}");
    ensure!(house.output(id, StreamName::Stdout).await? == b"done\n");
    Ok(())
}

fn is_filled(state: &Path) -> bool {
    state.join("identity/a/cert.pem").exists()
}

/// Protocol R-JOIN-6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_away_comes_back_by_itself_and_brings_what_it_did() -> anyhow::Result<()> {
    for (days, recovers) in [(1, false), (29, true)] {
        let (mut house, id) = house().await?;
        if recovers {
            age(&house, -(days + 3) * DAY, -days * DAY)?;
        } else {
            age(&house, -DAY, 2 * DAY)?;
        }
        house.start_agent(NAME, &[])?;
        house.connected(NAME).await?;
        its_result_arrives(&house, id).await?;
        ensure!(house.agent_log(NAME).contains("The certificate had ended") == recovers, "{days} days");
        ensure!(is_filled(&house.state_dir(NAME)) || !recovers, "{days} days");
        let audit = house.client().audit(&AuditQuery::default()).await?;
        let told = audit.items.iter().any(|row| row.action.contains("recover"));
        ensure!(told == recovers, "{days} days: {audit:?}");
        house.close().await?;
    }
    Ok(())
}

/// Protocol R-JOIN-6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_away_for_a_year_is_told_to_join_again_and_brings_what_it_did() -> anyhow::Result<()> {
    let (mut house, id) = house().await?;
    age(&house, -403 * DAY, -400 * DAY)?;
    house.start_agent(NAME, &[])?;
    soon("the word to join again", async || Ok(house.agent_log(NAME).contains("join again").then_some(()))).await?;
    ensure!(!is_filled(&house.state_dir(NAME)));
    house.stop_agent(NAME).await?;
    // The operator lets the host in again, under its name.
    house.client().remove_agent(&NAME.parse()?).await?;
    let line = token(&house, JoinTokenRequest { name: Some(NAME.to_owned()), ..JoinTokenRequest::default() }).await?;
    let refused = join(&house, NAME, &line).await?;
    ensure!(refused.code == Some(1) && refused.said.contains("--force"), "{refused:?}");
    let joined = run(host(&house, NAME, &["--force", &line])).await?;
    ensure!(joined.code == Some(0), "{}", joined.said);
    house.start_agent(NAME, &[])?;
    house.connected(NAME).await?;
    let command = house.shell(NAME, "echo again").await?;
    ensure!(house.finished(command.id).await?.phase == Phase::Succeeded);
    // The old command belongs to the name's former bearer; it has its end.
    ensure!(house.client().command(id).await?.phase.is_final());
    house.close().await
}
