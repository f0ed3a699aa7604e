//! A join that dies at any of its steps is finished by repeating it, with the same key and the same generation; and a
//! renewal that dies at any of its steps leaves an agent that connects.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::joins::JoinTokenRequest;
use common::tls::{load_chain, read_leaf};
use testkit::{House, HouseOptions, wait_for};

use super::hosts::{config, host, join, run, token};

/// The steps of a join, in their order.
const STEPS: [&str; 6] = [
    "join.key",
    "join.issued",
    "join.wrote_key",
    "join.wrote_authorities",
    "join.wrote_certificate",
    "join.wrote_config",
];
/// The steps at which a slot is filled.
const FILLING: [&str; 4] = ["identity.cleared", "identity.key", "identity.authorities", "identity.certificate"];
/// The shortest life of a certificate that a manager allows.
const SHORT: Duration = Duration::from_secs(30);

/// Protocol R-JOIN-3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_dies_at_any_step_is_finished_by_repeating_it() -> anyhow::Result<()> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    for step in STEPS {
        let name = step.replace(['.', '_'], "-");
        let line = token(&house, JoinTokenRequest::default()).await?;
        let mut dying = host(&house, &name, &[&line]);
        dying.env("PAPRIKA_CRASH_POINT", step);
        let status = dying.status().await?;
        ensure!(status.signal() == Some(9), "{step}: {status}");
        let folder = config(&house, &name).with_file_name("");
        let key = fs::read_to_string(folder.join("join.key")).with_context(|| step.to_owned())?;
        // Another host with the same token is not let in where it was consumed.
        if step != "join.key" {
            let other = join(&house, &format!("{name}-thief"), &line).await?;
            ensure!(other.code == Some(3), "{step}: {other:?}");
        }
        let joined = run(host(&house, &name, &[&line])).await?;
        ensure!(joined.code == Some(0), "{step}: {}", joined.said);
        ensure!(fs::read_to_string(folder.join("key.pem"))? == key, "{step}: another key");
        ensure!(!folder.join("join.key").exists());
        house.start_agent(&name, &[])?;
        house.connected(&name).await?;
    }
    house.close().await
}

/// Protocol R-JOIN-3: the use of the token is durable and nothing was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_whose_manager_dies_before_it_answers_is_finished_by_itself_with_the_same_key() -> anyhow::Result<()> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    let line = token(&house, JoinTokenRequest::default()).await?;
    house.stop_manager().await?;
    house.start_manager(&[("PAPRIKA_CRASH_POINT", "manager.join.consumed")]).await?;
    let mut joining = tokio::task::JoinSet::new();
    joining.spawn(run(host(&house, "web1", &[&line])));
    let died = wait_for(SHORT, "the death of the manager", async || Ok(house.manager()?.status()?)).await?;
    ensure!(died.signal() == Some(9), "{died}");
    house.start_manager(&[]).await?;
    let joined = joining.join_next().await.context("the host that joins")???;
    ensure!(joined.code == Some(0), "{}", joined.said);
    let tokens = house.client().join_tokens(None, None).await?;
    ensure!(tokens.items.iter().all(|token| token.used == 1), "{tokens:?}");
    let other = join(&house, "thief", &line).await?;
    ensure!(other.code == Some(3), "{other:?}");
    house.start_agent("web1", &[])?;
    house.connected("web1").await?;
    house.close().await
}

/// An agent that dies while it fills a slot starts with an identity that is whole, and renews again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_while_it_keeps_a_certificate_comes_back() -> anyhow::Result<()> {
    let options = HouseOptions { certificate_valid: Some(SHORT), ..HouseOptions::new(env!("CARGO_BIN_EXE_paprika")) };
    let mut house = House::start(options).await?;
    for point in FILLING {
        let name = point.replace('.', "-");
        let line = token(&house, JoinTokenRequest::default()).await?;
        let joined = join(&house, &name, &line).await?;
        ensure!(joined.code == Some(0), "{point}: {}", joined.said);
        house.start_agent(&name, &[("PAPRIKA_CRASH_POINT", point)])?;
    }
    for point in FILLING {
        let name = point.replace('.', "-");
        let died = wait_for(SHORT, "the death of an agent", async || Ok(house.agent(&name)?.status()?));
        let status = died.await?;
        ensure!(status.signal() == Some(9), "{point}: {status}");
        house.start_agent(&name, &[])?;
        house.connected(&name).await?;
    }
    for point in FILLING {
        let name = point.replace('.', "-");
        let slots = house.state_dir(&name).join("identity");
        wait_for(SHORT * 2, "a renewed certificate", async || {
            let whole = ["a", "b"].iter().filter_map(|slot| load_chain(&slots.join(slot).join("cert.pem")).ok());
            let leaves: Vec<_> = whole.filter_map(|chain| read_leaf(chain.first()?).ok()).collect();
            Ok(leaves.iter().any(|leaf| leaf.identity.name.as_str() == name).then_some(()))
        })
        .await?;
        house.connected(&name).await?;
    }
    house.close().await
}
