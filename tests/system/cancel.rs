//! Promise 3 from outside: cancel means gone, in every phase, with exactly one final phase that says by whom and why.

use std::time::Duration;

use anyhow::{Context, ensure};
use api::commands::{CancelOutcome, CancelRequest, Command};
use common::config::HumanDuration;
use common::model::Phase;
use common::wire::frame::Body;
use common::wire::{Ack, Outcome, command_ack};
use common::wire::{CommandAck, CommandResult};
use serde_json::Value;
use testkit::effects::Effects;
use testkit::survivors;
use testkit::{House, HouseOptions, soon, web};

/// Grandchildren in sessions of their own, all of them deaf to TERM, their parents gone.
const TREE: &str = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; (setsid sleep 1000 &); sleep 1000' &); \
                    (sh -c '(sleep 1000 &)' &); echo up; while :; do sleep 1000; done";

const HOUR: Duration = Duration::from_secs(3_600);

fn options() -> HouseOptions {
    HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))
}

fn because(reason: &str) -> CancelRequest {
    CancelRequest { reason: Some(reason.to_owned()), grace: Some(HumanDuration(Duration::from_millis(100))) }
}

/// Starts the tree and waits until all of it stands.
async fn tree(house: &House) -> anyhow::Result<u64> {
    let id = house.shell("web1", TREE).await?.id;
    soon("the tree to stand", async || Ok((survivors::marked(house.mark()).len() >= 5).then_some(()))).await?;
    house.command_when(id, "its output", |command| command.streams.values().any(|one| one.length > 0)).await?;
    Ok(id)
}

/// The one final phase, told once among the events, with who and why.
async fn cancelled_once(house: &House, id: u64, reason: &str) -> anyhow::Result<Command> {
    let command = house.finished(id).await?;
    ensure!(command.phase == Phase::Cancelled, "{command:?}");
    let cancel = command.cancel.clone().context("nobody wanted it")?;
    ensure!(cancel.reason.as_deref() == Some(reason) && !cancel.by.is_empty() && !cancel.pending, "{cancel:?}");
    let events = house.client().events(0, Some(1000)).await?;
    let finals: Vec<_> = events.items.iter().filter(|event| event.command == Some(id) && is_end(&event.kind)).collect();
    ensure!(finals.len() == 1, "not one final phase: {finals:?}");
    Ok(command)
}

fn is_end(kind: &str) -> bool {
    Phase::ALL.iter().any(|phase| phase.is_final() && kind == format!("command.{phase}"))
}

#[tokio::test]
async fn a_running_tree_that_ignores_term_is_gone_after_a_cancel() -> anyhow::Result<()> {
    let house = House::start(options().agents(&["web1"])).await?;
    let id = tree(&house).await?;
    let body = br#"{"reason": "enough", "grace": "100ms"}"#;
    let answer = web::call(&house, "DELETE", &format!("/agents/web1/commands/{id}"), body).await?;
    ensure!(answer.status == 202, "{answer:?}");
    ensure!(answer.json().get("answer").and_then(Value::as_str) == Some("cancel_pending"), "{answer:?}");
    let command = cancelled_once(&house, id, "enough").await?;
    ensure!(command.isolation.is_some());
    house.no_survivors().await?;
    house.close().await
}

#[tokio::test]
async fn the_same_tree_is_gone_where_there_are_no_cgroups() -> anyhow::Result<()> {
    let mut options = options().agents(&["web1"]);
    options.cgroup = "none".to_owned();
    let house = House::start(options).await?;
    let id = tree(&house).await?;
    house.client().cancel(id, &because("enough")).await?;
    let command = cancelled_once(&house, id, "enough").await?;
    ensure!(command.isolation.as_deref() == Some("best_effort"), "{:?}", command.isolation);
    house.no_survivors().await?;
    house.close().await
}

#[tokio::test]
async fn two_cancels_at_once_end_it_once() -> anyhow::Result<()> {
    let house = House::start(options().agents(&["web1"])).await?;
    let id = tree(&house).await?;
    let wish = because("twice");
    let (first, second) = tokio::join!(house.client().cancel(id, &wish), house.client().cancel(id, &wish));
    for answer in [first?, second?] {
        ensure!(answer.answer != CancelOutcome::Cancelled, "{answer:?}");
    }
    cancelled_once(&house, id, "twice").await?;
    house.no_survivors().await?;
    house.close().await
}

/// Cancelled with an hour to end by itself, of which it makes no use.
async fn deaf(house: &House) -> anyhow::Result<u64> {
    let id = tree(house).await?;
    let patient = CancelRequest { reason: Some("patience".to_owned()), grace: Some(HumanDuration(HOUR)) };
    house.client().cancel(id, &patient).await?;
    house.command_when(id, "it to be asked", |command| command.phase == Phase::Stopping).await?;
    Ok(id)
}

#[tokio::test]
async fn a_second_cancel_without_a_grace_ends_it_at_once() -> anyhow::Result<()> {
    let house = House::start(options().agents(&["web1"])).await?;
    let id = deaf(&house).await?;
    let answer = house.client().cancel(id, &CancelRequest::default()).await?;
    ensure!(answer.answer == CancelOutcome::CancelPending && answer.phase == Phase::Stopping, "{answer:?}");
    // The first one said why.
    cancelled_once(&house, id, "patience").await?;
    house.no_survivors().await?;
    house.close().await
}

#[tokio::test]
async fn the_same_call_twice_and_a_longer_grace_change_nothing() -> anyhow::Result<()> {
    let house = House::start(options().agents(&["web1"])).await?;
    let id = tree(&house).await?;
    let path = format!("/commands/{id}/cancel");
    let token = format!("Authorization: Bearer {}", house.token()?);
    let headers = ["Content-Type: application/json", &token, "Idempotency-Key: one"];
    let keyed = async |body: &str| web::call_with(&house, "POST", &path, &headers, body.as_bytes()).await;
    for _ in 0..2 {
        ensure!(keyed(r#"{"grace": "1h", "reason": "patience"}"#).await?.status == 202);
    }
    house.command_when(id, "it to be asked", |command| command.phase == Phase::Stopping).await?;
    ensure!(keyed("{}").await?.status == 202, "a repeat of the key");
    ensure!(web::call(&house, "POST", &path, br#"{"grace": "1h"}"#).await?.status == 202);
    // Whatever the agent is told it is told before this ends.
    let later = house.shell("web1", "true").await?.id;
    house.finished(later).await?;
    ensure!(house.client().command(id).await?.phase == Phase::Stopping);
    ensure!(survivors::marked(house.mark()).len() >= 5);
    // Now somebody names less than is left.
    house.client().cancel(id, &because("hurry")).await?;
    cancelled_once(&house, id, "patience").await?;
    house.no_survivors().await?;
    house.close().await
}

#[tokio::test]
async fn a_finished_command_keeps_its_phase() -> anyhow::Result<()> {
    let house = House::start(options().agents(&["web1"])).await?;
    let id = house.shell("web1", "exit 3").await?.id;
    let before = house.finished(id).await?;
    let answer = web::call(&house, "POST", &format!("/commands/{id}/cancel"), b"{}").await?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(answer.json().get("answer").and_then(Value::as_str) == Some("already_final"), "{answer:?}");
    let after = house.client().command(id).await?;
    ensure!((after.phase, after.exit_code) == (before.phase, before.exit_code), "{after:?}");
    ensure!(after.phase == Phase::Failed && after.exit_code == Some(3));
    house.close().await
}

#[tokio::test]
async fn a_queued_command_of_an_absent_agent_is_cancelled_at_once_and_never_runs() -> anyhow::Result<()> {
    let mut house = House::start(options().agents(&["web1"])).await?;
    house.stop_agent("web1").await?;
    house.away("web1").await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    let id = house.shell("web1", &effects.line("cancelled")).await?.id;
    let other = house.shell("web1", &effects.line("kept")).await?.id;
    let answer = house.client().cancel(id, &because("never mind")).await?;
    ensure!(answer.answer == CancelOutcome::Cancelled && answer.phase == Phase::Queued, "{answer:?}");
    cancelled_once(&house, id, "never mind").await?;
    house.start_agent("web1", &[])?;
    house.finished(other).await?;
    ensure!((effects.count("cancelled")?, effects.count("kept")?) == (0, 1));
    cancelled_once(&house, id, "never mind").await?;
    house.close().await
}

#[tokio::test]
async fn a_command_that_was_sent_and_not_accepted_is_never_sent_again() -> anyhow::Result<()> {
    let house = House::start(options()).await?;
    let script = house.script("scripted").await?;
    let (mut peer, _) = script.open().await?;
    let id = house.shell("scripted", "true").await?.id;
    let (_, sent) = peer.command().await?;
    let answer = house.client().cancel(id, &because("too late?")).await?;
    ensure!(answer.answer == CancelOutcome::CancelPending && answer.phase == Phase::Dispatched, "{answer:?}");
    // The agent goes before it has answered anything; another session of it knows nothing.
    drop(peer);
    house.away("scripted").await?;
    let (mut peer, _) = script.open().await?;
    let (seq, cancel) = peer
        .expect("CommandCancel and never the command", |frame| match &frame.body {
            Some(Body::CommandCancel(cancel)) => Some(Ok((frame.seq, cancel.clone()))),
            Some(Body::Command(command)) => Some(Err(command.clone())),
            _ => None,
        })
        .await?
        .map_err(|command| anyhow::anyhow!("sent again: {command:?}"))?;
    ensure!(
        cancel.uid == sent.uid && cancel.reason == "too late?" && cancel.expires_ms == sent.expires_ms,
        "{cancel:?}"
    );
    ensure!(house.client().command(id).await?.cancel.is_some_and(|cancel| cancel.pending));
    peer.answer(seq, Body::Ack(Ack {})).await?;
    let result = CommandResult {
        uid: cancel.uid.clone(),
        id,
        outcome: Outcome::Cancelled.into(),
        cancelled_by: cancel.by,
        cancel_reason: cancel.reason,
        ..CommandResult::default()
    };
    peer.send(Body::CommandResult(result)).await?;
    peer.expect("ResultAck", |frame| match &frame.body {
        Some(Body::ResultAck(ack)) => (ack.uid == cancel.uid).then_some(()),
        _ => None,
    })
    .await?;
    cancelled_once(&house, id, "too late?").await?;
    house.close().await
}

#[tokio::test]
async fn an_agent_that_hears_of_the_cancel_first_never_runs_the_command() -> anyhow::Result<()> {
    let mut house = House::start(options().agents(&["web1"]).proxied()).await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    // A first command shows that both sides have reconciled: nothing is sent before that.
    let first = house.shell("web1", "true").await?.id;
    house.finished(first).await?;
    // The command leaves the manager and reaches nobody.
    house.proxy()?.pause();
    let id = house.shell("web1", &effects.line("lost")).await?.id;
    house.command_when(id, "it to be sent", |command| command.phase == Phase::Dispatched).await?;
    house.kill_agent("web1")?;
    house.client().cancel(id, &because("gone astray")).await?;
    house.proxy()?.cut();
    house.proxy()?.resume();
    house.start_agent("web1", &[])?;
    cancelled_once(&house, id, "gone astray").await?;
    ensure!(effects.count("lost")? == 0);
    house.close().await
}

#[tokio::test]
async fn an_accepted_command_of_an_agent_that_is_away_is_stopped_when_it_returns() -> anyhow::Result<()> {
    let mut house = House::start(options().agents(&["web1"])).await?;
    let id = tree(&house).await?;
    house.kill_agent("web1")?;
    house.away("web1").await?;
    let body = br#"{"reason": "while away", "grace": "100ms"}"#;
    let answer = web::call(&house, "POST", &format!("/commands/{id}/cancel"), body).await?;
    ensure!(answer.status == 202, "{answer:?}");
    ensure!(answer.json().get("answer").and_then(Value::as_str) == Some("cancel_pending"), "{answer:?}");
    let command = house.client().command(id).await?;
    ensure!(!command.phase.is_final() && command.cancel.as_ref().is_some_and(|cancel| cancel.pending), "{command:?}");
    ensure!(!command.agent_reachable && !survivors::marked(house.mark()).is_empty());
    house.start_agent("web1", &[])?;
    cancelled_once(&house, id, "while away").await?;
    house.no_survivors().await?;
    house.close().await
}

#[tokio::test]
async fn a_command_ends_politely_within_its_grace() -> anyhow::Result<()> {
    let house = House::start(options().agents(&["web1"])).await?;
    let id = house.shell("web1", "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done").await?.id;
    house.command_when(id, "its output", |command| command.streams.values().any(|one| one.length > 0)).await?;
    house.client().cancel(id, &CancelRequest { reason: Some("please".to_owned()), grace: None }).await?;
    let command = cancelled_once(&house, id, "please").await?;
    let text = house.output(id, common::model::StreamName::Stdout).await?;
    ensure!(text == b"up\nbye\n", "{} {command:?}", String::from_utf8_lossy(&text));
    house.close().await
}

#[tokio::test]
async fn a_cancel_of_what_was_accepted_and_not_started_reaches_the_agent_that_holds_it() -> anyhow::Result<()> {
    let house = House::start(options()).await?;
    let script = house.script("scripted").await?;
    let (mut peer, _) = script.open().await?;
    let id = house.shell("scripted", "true").await?.id;
    let (seq, command) = peer.command().await?;
    let accepted =
        CommandAck { uid: command.uid.clone(), answer: command_ack::Answer::Accepted.into(), ..CommandAck::default() };
    peer.answer(seq, Body::CommandAck(accepted)).await?;
    house.command_when(id, "it to be accepted", |command| command.phase == Phase::Accepted).await?;
    let answer = house.client().cancel(id, &because("held")).await?;
    ensure!(answer.answer == CancelOutcome::CancelPending && answer.phase == Phase::Accepted, "{answer:?}");
    let told = peer
        .expect("CommandCancel", |frame| match &frame.body {
            Some(Body::CommandCancel(cancel)) => Some(cancel.clone()),
            _ => None,
        })
        .await?;
    ensure!(
        told.uid == command.uid && told.grace_ms == 100 && told.reason == "held" && !told.by.is_empty(),
        "{told:?}"
    );
    house.close().await
}

#[tokio::test]
async fn a_command_that_stopped_its_own_shim_is_cancelled_all_the_same() -> anyhow::Result<()> {
    let house = House::start(options().agents(&["web1"])).await?;
    // The shim is the parent of what it runs.
    let command = house.shell("web1", "kill -STOP $PPID; exec sleep 1000").await?;
    let dir = house.state_dir("web1").join("commands").join(command.uid.to_string());
    let stopped = soon("the shim to stand still", async || {
        let shims = survivors::with_argument(&dir.display().to_string());
        let stat = |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_stopped = |pid| stat(pid).rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
        Ok(shims.into_iter().find(|shim| is_stopped(shim.pid)))
    });
    stopped.await?;
    house.client().cancel(command.id, &because("stood still")).await?;
    cancelled_once(&house, command.id, "stood still").await?;
    house.no_survivors().await?;
    house.close().await
}
