//! Absence and restored stores: what waits for an agent reaches it, unless it expired; an older store makes nothing run
//! twice, overwrites nothing, and learns what it does not know from the agents.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use common::config::HumanDuration;
use common::id::Uid;
use common::model::{Phase, StreamName};
use common::wire::{self, InventoryItem};
use testkit::effects::Effects;
use testkit::{House, HouseOptions, soon, web};
use tokio::time::Instant;

fn options() -> HouseOptions {
    HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))
}

#[tokio::test]
async fn an_agent_that_was_away_gets_what_waits_for_it_unless_it_expired() -> anyhow::Result<()> {
    let mut house = House::start(options().agents(&["web1"])).await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    house.stop_agent("web1").await?;
    house.away("web1").await?;
    let kept = house.shell("web1", &effects.line("kept")).await?;
    ensure!(kept.phase == Phase::Queued && !kept.agent_reachable, "{kept:?}");
    let mut short = house.shell_request(&effects.line("late"));
    short.expires_in = Some(HumanDuration(Duration::from_millis(300)));
    let late = house.client().start(&"web1".parse()?, &short).await?.id;
    ensure!(house.finished(late).await?.phase == Phase::Expired);
    house.start_agent("web1", &[])?;
    ensure!(house.finished(kept.id).await?.phase == Phase::Succeeded);
    ensure!((effects.count("kept")?, effects.count("late")?) == (1, 0));
    house.close().await
}

#[tokio::test]
async fn a_command_lives_on_while_the_manager_and_the_agent_are_away_in_turn() -> anyhow::Result<()> {
    let mut house = House::start(options().agents(&["web1"])).await?;
    let go = house.folder().join("go");
    let id = house
        .shell("web1", &format!("echo one; while [ ! -e '{}' ]; do sleep 0.02; done; echo two", go.display()))
        .await?
        .id;
    house.command_when(id, "it to run", |command| command.phase == Phase::Running).await?;
    house.kill_manager()?;
    house.start_manager(&[]).await?;
    house.kill_agent("web1")?;
    house.start_agent("web1", &[])?;
    house.connected("web1").await?;
    house.stop_manager().await?;
    house.stop_agent("web1").await?;
    fs::write(&go, "")?;
    house.start_manager(&[]).await?;
    house.start_agent("web1", &[])?;
    ensure!(house.finished(id).await?.phase == Phase::Succeeded);
    ensure!(house.output(id, StreamName::Stdout).await? == b"one\ntwo\n");
    house.close().await
}

#[tokio::test]
async fn an_unknown_agent_is_refused_at_once() -> anyhow::Result<()> {
    let house = House::start(options()).await?;
    let body = br#"{"operation": "command.run", "args": {"run": ["true"]}}"#;
    web::call(&house, "POST", "/agents/nobody/commands", body).await?;
    let started = Instant::now();
    let answer = web::call(&house, "POST", "/agents/nobody/commands", body).await?;
    // The goal is 50 ms and measured in bench/; here only "it does not wait for anybody" is shown.
    ensure!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    ensure!(answer.status == 404 && answer.code() == "not_found", "{answer:?}");
    house.close().await
}

#[tokio::test]
async fn a_restored_older_store_runs_nothing_twice_and_learns_what_it_missed() -> anyhow::Result<()> {
    let mut house = House::start(options().agents(&["web1", "away"])).await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    house.stop_agent("away").await?;
    house.away("away").await?;
    let before = house.shell("web1", &effects.line("before")).await?.id;
    house.finished(before).await?;
    // In the copy this one is queued; in the life that follows it runs.
    let waited = house.shell("away", &effects.line("waited")).await?.id;
    house.stop_manager().await?;
    let copy = house.folder().join("copy");
    copy_databases(&house.manager_dir(), &copy)?;
    house.start_manager(&[]).await?;
    house.start_agent("away", &[])?;
    house.finished(waited).await?;
    let go = house.folder().join("go");
    let line = format!(
        "{}; echo out; while [ ! -e '{}' ]; do sleep 0.02; done; exit 5",
        effects.line("running"),
        go.display()
    );
    let running = house.shell("web1", &line).await?;
    house.command_when(running.id, "its output", |command| command.streams.values().any(|one| one.length > 0)).await?;
    let known = house.client().status().await?;
    house.stop_agent("away").await?;
    house.stop_manager().await?;
    copy_databases(&copy, &house.manager_dir())?;
    house.start_manager(&[]).await?;

    // web1 has heard more than this store knows: it is another life from now on.
    let status = soon("a new incarnation", async || {
        let status = house.client().status().await?;
        Ok((status.incarnation > known.incarnation).then_some(status))
    });
    status.await?;
    soon("web1 to be back", async || Ok(house.client().agent(&"web1".parse()?).await?.connected.then_some(()))).await?;

    // The running one, unknown here, is adopted, and ends as it would have.
    let adopted = soon("the running command to be known", async || {
        let page = house.client().commands(&Default::default()).await?;
        Ok(page.items.into_iter().find(|command| command.uid == running.uid))
    });
    let adopted = adopted.await?;
    fs::write(&go, "")?;
    let ended = house.finished(adopted.id).await?;
    ensure!(ended.phase == Phase::Failed && ended.exit_code == Some(5), "{ended:?}");
    ensure!(house.output(adopted.id, StreamName::Stdout).await? == b"out\n");

    // What was queued waits for an operator; the agent that ran it before the copy was put back says how it ended.
    let held = house.client().command(waited).await?;
    ensure!(held.phase == Phase::Queued && held.waiting.as_deref() == Some("restored"), "{held:?}");
    house.start_agent("away", &[])?;
    house.connected("away").await?;
    let released = house.finished(waited).await?;
    ensure!(released.phase == Phase::Succeeded, "{released:?}");

    // Nothing known was overwritten; new ids are beyond everything that was given out.
    ensure!(house.client().command(before).await?.phase == Phase::Succeeded);
    let fresh = house.shell("web1", &effects.line("fresh")).await?.id;
    ensure!(fresh > running.id, "{fresh} may mean two things");
    ensure!(house.finished(fresh).await?.phase == Phase::Succeeded);
    for tag in ["before", "waited", "running", "fresh"] {
        ensure!(effects.count(tag)? == 1, "{tag}: {:?}", effects.counts()?);
    }
    house.close().await
}

#[tokio::test]
async fn an_agent_that_heard_more_than_the_store_knows_makes_it_a_new_one() -> anyhow::Result<()> {
    let house = House::start(options()).await?;
    let mut script = house.script("web1").await?;
    let (peer, first) = script.open().await?;
    drop(peer);
    let away = house.script("other").await?;
    let held = house.shell("other", "true").await?.id;
    script.hello.incarnation = first.incarnation;
    script.hello.store_position = first.store_position + 1_000_000;
    let (mut peer, second) =
        soon("to be served after the new beginning", async || Ok(Some(script.greet().await?))).await?;
    ensure!(second.incarnation > first.incarnation && second.store_position >= first.store_position);
    let result = InventoryItem {
        uid: Uid::random().to_wire(),
        id: 7,
        phase: wire::CommandPhase::Ended.into(),
        tombstone: true,
        ..Default::default()
    };
    peer.list(vec![result]).await?;
    let command = house.client().command(held).await?;
    ensure!(command.waiting.as_deref() == Some("restored"), "{command:?}");
    let (mut other, _) = away.open().await?;
    other.settle().await?;
    house.client().release(held).await?;
    let (_, sent) = other.command().await?;
    ensure!(sent.id == held);
    house.close().await
}

/// Copies what a backup holds: the databases with their journals.
fn copy_databases(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for database in ["paprika.db", "output.db"] {
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("{database}{suffix}");
            match fs::copy(from.join(&name), to.join(&name)) {
                Ok(_) => {}
                // A store that was closed well has no journal; an old one must not be mixed with the copy.
                Err(_) if !suffix.is_empty() => drop(fs::remove_file(to.join(&name))),
                Err(error) => return Err(error).context(name),
            }
        }
    }
    Ok(())
}
