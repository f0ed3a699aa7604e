//! The path of a command between service and agent.

use std::time::Duration;

use common::model::{Phase, StreamName};
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{self, bye, nak};
use manager::service::CancelWish;
use prost::Message;
use store::types::{CancelAnswer, OutputRead};

use crate::house::{House, request, wait_for};
use crate::peer::{item, output};

fn because(reason: &str, grace: Option<Duration>) -> CancelWish {
    CancelWish { reason: Some(reason.to_owned()), grace, key: None }
}

#[tokio::test]
async fn a_command_goes_down_and_its_bytes_and_end_come_up() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    assert_eq!((command.id, command.operation.as_str()), (id.0, "command.run"));
    peer.accept(seq, &command).await;
    let running = wire::CommandProgress {
        uid: command.uid.clone(),
        phase: wire::CommandPhase::Running.into(),
        isolation: "cgroup".to_owned(),
        ..Default::default()
    };
    peer.send(Body::CommandProgress(running)).await;
    peer.output(&command, 0, b"hello ").await;
    peer.output(&command, 6, b"world").await;
    wait_for("running", || async { (house.phase(id).await == "running").then_some(()) }).await;
    peer.finish(&command, 11).await;
    assert_eq!(peer.acked().await.to_wire(), command.uid);
    let view = house.service.wait_command(&house.admin, id, Duration::from_secs(5)).await.unwrap();
    assert!(view.complete() && view.reachable);
    assert_eq!(view.command.phase, Phase::Succeeded);
    assert_eq!(view.command.isolation.as_deref(), Some("cgroup"));
    let read = house.store.read_output(id, StreamName::Stdout, 3, 100).await.unwrap();
    assert_eq!(read, OutputRead::Bytes("lo world".into()));
}

/// Protocol R-RES-1, R-RES-2.
#[tokio::test]
async fn a_result_before_its_bytes_is_acknowledged_only_with_them() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    peer.finish(&command, 5).await;
    wait_for("the end", || async { (house.phase(id).await == "succeeded").then_some(()) }).await;
    peer.nothing_waits().await;
    let view = house.service.wait_command(&house.admin, id, Duration::ZERO).await.unwrap();
    assert!(!view.complete(), "bytes are missing");
    peer.output(&command, 0, b"12345").await;
    assert_eq!(peer.acked().await.to_wire(), command.uid);
    assert!(house.service.command(&house.admin, id).await.unwrap().complete());
}

#[tokio::test]
async fn a_queued_command_that_is_cancelled_never_leaves() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let id = house.submit("web1").await;
    let (answer, view) = house.service.cancel(&house.admin, id, None, because("typo", None)).await.unwrap();
    assert_eq!((answer, view.command.phase), (CancelAnswer::Done, Phase::Cancelled));
    let mut peer = house.connect(&identity, 1).await;
    let second = house.submit("web1").await;
    let (_, command) = peer.command().await;
    assert_eq!(command.id, second.0);
    peer.nothing_waits().await;
}

/// Protocol R-CMD-8.
#[tokio::test]
async fn a_sent_command_that_is_cancelled_is_never_sent_again() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (_, command) = peer.command().await;
    let (answer, _) =
        house.service.cancel(&house.admin, id, None, because("stop", Some(Duration::ZERO))).await.unwrap();
    assert!(matches!(answer, CancelAnswer::Pending { phase: Phase::Dispatched, again: false }));
    let Body::CommandCancel(cancel) = peer.body().await else { panic!("a cancel") };
    assert_eq!((cancel.uid.as_ref(), cancel.grace_ms, cancel.by.as_str()), (command.uid.as_ref(), 0, "admin"));
    drop(peer);
    let mut peer = house.connect(&identity, 1).await;
    let Body::CommandCancel(cancel) = peer.body().await else { panic!("a cancel and no command") };
    assert_eq!(cancel.uid, command.uid);
    let end = wire::CommandResult { outcome: wire::Outcome::Cancelled.into(), ..crate::peer::result(&command, 0) };
    peer.send(Body::CommandResult(end)).await;
    peer.acked().await;
    assert_eq!(house.phase(id).await, "cancelled");
}

/// Protocol R-CMD-8.
#[tokio::test]
async fn a_second_cancel_tells_the_agent_to_skip_the_grace_and_a_repeat_tells_it_nothing() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    let cancel = async |wish: CancelWish| house.service.cancel(&house.admin, id, None, wish).await.unwrap();
    let keyed = |key: &str| CancelWish { key: Some(key.to_owned()), ..because("first", None) };
    cancel(keyed("a")).await;
    let Body::CommandCancel(first) = peer.body().await else { panic!("a cancel") };
    assert_eq!(first.grace_ms, common::limits::GRACE_UNSET);
    // The same call again, and a grace that is no shorter: nothing to tell.
    cancel(keyed("a")).await;
    cancel(because("slower", Some(common::limits::DEFAULT_GRACE))).await;
    peer.nothing_waits().await;
    cancel(keyed("b")).await;
    let Body::CommandCancel(second) = peer.body().await else { panic!("another cancel") };
    assert_eq!((second.grace_ms, second.reason.as_str()), (0, "first"));
    cancel(because("third", None)).await;
    peer.nothing_waits().await;
}

#[tokio::test]
async fn what_an_agent_still_runs_goes_on_after_a_reconnect_from_the_stored_offset() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    peer.output(&command, 0, b"abc").await;
    wait_for("three bytes", || async {
        let lengths = house.store.stored_lengths(id).await.unwrap();
        lengths.contains(&(StreamName::Stdout, 3)).then_some(())
    })
    .await;
    drop(peer);
    let mut peer = house.dial(&identity, 2000);
    peer.hello(&house.hello(&identity, 1)).await;
    peer.welcome().await;
    let judged = peer.settle(vec![item(&command, wire::CommandPhase::Running)]).await;
    let [judged] = judged.as_slice() else { panic!("one item") };
    assert_eq!(judged.action(), Action::Continue);
    assert!(judged.streams.iter().any(|stream| stream.stream() == wire::Stream::Stdout && stream.length == 3));
    // Bytes from before the offset are repeats and harmless.
    peer.output(&command, 0, b"abcdef").await;
    peer.finish(&command, 6).await;
    assert_eq!(peer.acked().await.to_wire(), command.uid);
    let read = house.store.read_output(id, StreamName::Stdout, 0, 100).await.unwrap();
    assert_eq!(read, OutputRead::Bytes("abcdef".into()));
}

#[tokio::test]
async fn a_command_that_only_its_agent_knows_is_described_and_taken_in() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let command = wire::Command {
        uid: vec![9; 16].into(),
        id: 1,
        operation: "command.run".to_owned(),
        args: br#"{"run":["true"]}"#.to_vec().into(),
        expires_ms: house.store.position().position.0 + common::clock::unix_ms() + 3_600_000,
        created_ms: common::clock::unix_ms(),
        generation: identity.generation.0,
        attempt: 1,
        ..Default::default()
    };
    let mut peer = house.dial(&identity, 1);
    peer.hello(&house.hello(&identity, 1)).await;
    peer.welcome().await;
    let judged = peer.settle(vec![item(&command, wire::CommandPhase::Running)]).await;
    assert_eq!(judged.first().map(wire::ReconcileItem::action), Some(Action::Describe));
    let described =
        wire::InventoryItem { command: command.encode_to_vec().into(), ..item(&command, wire::CommandPhase::Running) };
    peer.send(Body::Inventory(wire::Inventory { items: vec![described], last: true })).await;
    let Body::Reconcile(judged) = peer.body().await else { panic!("a Reconcile") };
    assert_eq!(judged.items.first().map(wire::ReconcileItem::action), Some(Action::Continue));
    peer.output(&command, 0, b"x").await;
    peer.finish(&command, 1).await;
    peer.acked().await;
    let uid = common::id::Uid([9; 16]);
    let row = house.store.command_by_uid(&uid).await.unwrap().unwrap();
    assert_eq!(row.phase, Phase::Succeeded);
}

/// Protocol R-AUTH-3.
#[tokio::test]
async fn nobody_reports_for_a_command_of_somebody_else() {
    let house = House::build().await;
    let (one, two) = (house.agent("web1").await, house.agent("web2").await);
    let mut honest = house.connect(&one, 1).await;
    let mut liar = house.connect(&two, 2).await;
    let id = house.submit("web1").await;
    let (_, command) = honest.command().await;
    liar.finish(&command, 0).await;
    assert_eq!(liar.nak().await, nak::Code::NotMine);
    liar.output(&command, 0, b"lie").await;
    assert_eq!(liar.nak().await, nak::Code::NotMine);
    let unknown = wire::Command { uid: vec![1; 16].into(), ..command.clone() };
    liar.finish(&unknown, 0).await;
    assert_eq!(liar.nak().await, nak::Code::Unknown);
    assert_eq!(house.phase(id).await, "dispatched");
}

/// Protocol R-CREDIT-4.
#[tokio::test]
async fn output_beyond_the_credit_ends_the_session() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    peer.send(Body::CommandOutput(output(&command, common::limits::STREAM_CREDIT, b"x"))).await;
    assert_eq!(peer.bye().await.0, bye::Code::ProtocolError);
}

#[tokio::test]
async fn credit_follows_the_bytes_so_that_a_stream_never_stalls() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    let total = 4 * common::limits::STREAM_CREDIT;
    let chunk = vec![7; common::limits::MAX_OUTPUT_PAYLOAD];
    let (mut sent, mut granted) = (0, common::limits::STREAM_CREDIT);
    while sent < total {
        if sent + chunk.len() as u64 <= granted {
            peer.output(&command, sent, &chunk).await;
            sent += chunk.len() as u64;
            continue;
        }
        let Body::OutputCredit(credit) = peer.body().await else { panic!("credit") };
        granted = credit.offset;
    }
    peer.finish(&command, total).await;
    peer.acked().await;
    let view = house.service.command(&house.admin, id).await.unwrap();
    assert!(view.complete());
}

/// Protocol R-CREDIT-3.
#[tokio::test]
async fn credit_is_granted_for_bytes_that_can_be_read_already() {
    use common::limits::{MAX_OUTPUT_PAYLOAD, STREAM_CREDIT};

    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    let chunk = vec![7; MAX_OUTPUT_PAYLOAD];
    for number in 0..STREAM_CREDIT / 4 / MAX_OUTPUT_PAYLOAD as u64 {
        peer.output(&command, number * MAX_OUTPUT_PAYLOAD as u64, &chunk).await;
    }
    let Body::OutputCredit(credit) = peer.body().await else { panic!("credit") };
    let readable = credit.offset - STREAM_CREDIT;
    assert!(readable > 0, "{credit:?}");
    let last = house.store.read_output(id, StreamName::Stdout, readable - 1, 1).await.unwrap();
    assert_eq!(last, OutputRead::Bytes(vec![7].into()));
}

#[tokio::test]
async fn an_agent_that_does_not_understand_a_command_refuses_it() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, _) = peer.command().await;
    peer.reply(seq, Body::Nak(wire::Nak { code: nak::Code::Unsupported.into(), reason: String::new() })).await;
    wait_for("refused", || async { (house.phase(id).await == "refused").then_some(()) }).await;
}

#[tokio::test]
async fn a_hundred_commands_at_once_all_end_once() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(house.submit("web1").await);
    }
    let mut seen = Vec::new();
    let mut acked = 0;
    while acked < ids.len() {
        let frame = peer.next().await.expect("a frame");
        match frame.body {
            Some(Body::Command(command)) => {
                peer.accept(frame.seq, &command).await;
                peer.finish(&command, 0).await;
                seen.push(command.id);
            }
            Some(Body::ResultAck(_)) => acked += 1,
            other => panic!("unexpected {other:?}"),
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ids.iter().map(|id| id.0).collect::<Vec<_>>());
    for id in ids {
        assert_eq!(house.phase(id).await, "succeeded");
    }
}

#[tokio::test]
async fn a_refused_submit_leaves_an_audit_row_and_no_command() {
    let house = House::build().await;
    house.agent("web1").await;
    let mut wrong = request();
    wrong.user = Some("no:body".to_owned());
    let refused = house.service.submit(&house.admin, vec!["web1".parse().unwrap()], wrong, None, false, None).await;
    assert_eq!(refused.unwrap_err().code(), "invalid");
    let unknown = house.service.submit(&house.admin, vec!["web9".parse().unwrap()], request(), None, false, None).await;
    assert_eq!(unknown.unwrap_err().code(), "not_found");
    let rows = house.store.audit_rows(0, 100).await.unwrap();
    let refusals = rows.iter().filter(|row| row.action == "command.submit" && row.outcome == "refused").count();
    assert_eq!(refusals, 2);
    let all =
        house.service.commands(&house.admin, store::types::CommandFilter { limit: 10, ..Default::default() }).await;
    assert!(all.unwrap().views.is_empty());
}
