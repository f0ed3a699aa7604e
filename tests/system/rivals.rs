//! Two connections under one name: a restarted agent takes over, a cloned one stops both, and nothing runs twice.

use anyhow::ensure;
use common::id::Uid;
use common::limits::RIVAL_PING;
use common::model::Phase;
use common::wire::bye::Code;
use common::wire::frame::Body;
use testkit::effects::Effects;
use testkit::{House, HouseOptions, soon, wait_for};

fn options() -> HouseOptions {
    HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))
}

#[tokio::test]
async fn a_second_connection_of_the_same_agent_is_served_and_the_older_one_told() -> anyhow::Result<()> {
    let house = House::start(options()).await?;
    let script = house.script("web1").await?;
    let (mut older, first) = script.open().await?;
    let (mut newer, second) = script.open().await?;
    ensure!(second.epoch > first.epoch, "{} then {}", first.epoch, second.epoch);
    let bye = older.bye().await?;
    ensure!(bye.code() == Code::Superseded, "{bye:?}");
    older.closed(testkit::wait::PATIENCE).await?;
    let id = house.shell("web1", "true").await?.id;
    let (_, command) = newer.command().await?;
    ensure!(command.id == id);
    house.connected("web1").await?;
    house.close().await
}

#[tokio::test]
async fn an_agent_of_another_boot_takes_over_when_the_older_connection_is_silent() -> anyhow::Result<()> {
    let house = House::start(options()).await?;
    let mut script = house.script("web1").await?;
    // Nobody reads from the older one: it looks like a host that was switched off.
    let (older, first) = script.open().await?;
    script.hello.boot_id = Uid::random().to_string();
    let (mut newer, second) = script.open().await?;
    ensure!(second.epoch > first.epoch);
    newer.settle().await?;
    let agent = house.client().agent(&"web1".parse()?).await?;
    ensure!(agent.connected && agent.quarantined.is_none(), "{agent:?}");
    drop(older);
    house.close().await
}

#[tokio::test]
async fn two_live_hosts_with_one_identity_are_both_stopped_until_somebody_decides() -> anyhow::Result<()> {
    let house = House::start(options()).await?;
    let script = house.script("web1").await?;
    let (mut older, _) = script.open().await?;
    let mut clone = script.clone();
    clone.hello.boot_id = Uid::random().to_string();
    clone.hello.journal = Uid::random();
    // `bye` answers the ping meanwhile: the older one is alive.
    let (newer, told) = tokio::join!(clone.open(), older.bye());
    ensure!(told?.code() == Code::Banned);
    let refused = newer.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("Banned"), "{refused}");
    house.away("web1").await?;
    let agent = house.client().agent(&"web1".parse()?).await?;
    ensure!(agent.quarantined.is_some(), "{agent:?}");
    // Nobody of this name is served, whoever it is.
    let (mut peer, _) = match script.greet().await {
        Ok(_) => anyhow::bail!("served in quarantine"),
        Err(error) => {
            ensure!(format!("{error:#}").contains("Banned"), "{error:#}");
            let accept = api::agents::AgentChange { accept: Some(true), drained: None };
            ensure!(house.client().change_agent(&"web1".parse()?, &accept).await?.quarantined.is_none());
            script.open().await?
        }
    };
    peer.settle().await?;
    let log = house.manager_log();
    let line = log.lines().find(|line| line.contains("quarantine") && line.matches("127.0.0.1:").count() >= 2);
    ensure!(line.is_some(), "no line of the log names both addresses");
    house.close().await
}

#[tokio::test]
async fn cloned_agents_run_nothing_twice() -> anyhow::Result<()> {
    let mut house = House::start(options().agents(&["web1"])).await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    let running = house.shell("web1", &format!("{}; sleep 1000", effects.line("running"))).await?.id;
    house.command_when(running, "it to run", |command| command.phase == Phase::Running).await?;
    soon("its effect", async || Ok((effects.count("running")? == 1).then_some(()))).await?;
    // A copy of the whole host but for its boot: the same certificate, another journal.
    let mut clone = house.script("web1").await?;
    clone.hello.journal = Uid::random();
    clone.hello.boot_id = Uid::random().to_string();
    let refused = clone.open().await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("Banned"), "{refused}");
    house.away("web1").await?;
    let queued = house.shell("web1", &effects.line("queued")).await?.id;
    ensure!(house.client().command(queued).await?.phase == Phase::Queued);
    // The operator decides for the first one, which comes back with everything it held.
    house.kill_agent("web1")?;
    let accept = api::agents::AgentChange { accept: Some(true), drained: None };
    house.client().change_agent(&"web1".parse()?, &accept).await?;
    house.start_agent("web1", &[])?;
    house.connected("web1").await?;
    ensure!(house.finished(queued).await?.phase == Phase::Succeeded);
    house.client().cancel(running, &Default::default()).await?;
    ensure!(house.finished(running).await?.phase == Phase::Cancelled);
    ensure!(effects.counts()?.values().all(|count| *count == 1), "{:?}", effects.counts()?);
    house.no_survivors().await?;
    house.close().await
}

/// Protocol R-SESSION-4.
#[tokio::test]
async fn what_a_superseded_session_says_has_no_effect() -> anyhow::Result<()> {
    let house = House::start(options()).await?;
    let script = house.script("web1").await?;
    let (mut older, _) = script.open().await?;
    let id = house.shell("web1", "true").await?.id;
    let (_, command) = older.command().await?;
    let (mut newer, _) = script.greet().await?;
    let result = common::wire::CommandResult {
        uid: command.uid.clone(),
        id,
        outcome: common::wire::Outcome::Succeeded.into(),
        ..Default::default()
    };
    // It may be closed already, which is just as good.
    let _ = older.send(Body::CommandResult(result)).await;
    wait_for(RIVAL_PING * 5, "the older one to be closed", async || {
        Ok(older.closed(RIVAL_PING).await.is_ok().then_some(()))
    })
    .await?;
    newer.list(Vec::new()).await?;
    newer.settle().await?;
    let phase = house.client().command(id).await?.phase;
    ensure!(!phase.is_final(), "{phase} by the word of a fenced session");
    house.close().await
}
