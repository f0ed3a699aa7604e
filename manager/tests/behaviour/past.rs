//! What agents bring of a past that the store does not know, and how much of it.

use common::id::{CommandId, Uid};
use common::model::{Phase, StreamName};
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{self, bye, nak};
use prost::Message;
use store::types::OutputRead;

use crate::house::{House, wait_for};
use crate::peer::{Peer, item, output, result};

/// The line of a command of which only the end is left.
fn tombstone(command: &wire::Command) -> wire::InventoryItem {
    wire::InventoryItem { tombstone: true, ..item(command, wire::CommandPhase::Ended) }
}

/// What an agent remembers of a command that is gone.
fn remembered(generation: u64, uid: u8, id: u64) -> wire::Command {
    let now = common::clock::unix_ms();
    wire::Command {
        uid: vec![uid; 16].into(),
        id,
        generation,
        expires_ms: now + 3_600_000,
        created_ms: now - 60_000,
        ..Default::default()
    }
}

async fn reconciled(peer: &mut Peer) -> Vec<wire::ReconcileItem> {
    match peer.body().await {
        Body::Reconcile(reconcile) => reconcile.items,
        other => panic!("expected a Reconcile, got {other:?}"),
    }
}

async fn describe(peer: &mut Peer, line: wire::InventoryItem, command: &wire::Command) {
    let items = vec![wire::InventoryItem { command: command.encode_to_vec().into(), ..line }];
    peer.send(Body::Inventory(wire::Inventory { items, last: false })).await;
}

#[tokio::test]
async fn what_an_older_copy_runs_ends_as_the_tombstone_of_its_agent_says() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    peer.output(&command, 0, b"abc").await;
    wait_for("three bytes", || async {
        house.store.stored_lengths(id).await.unwrap().contains(&(StreamName::Stdout, 3)).then_some(())
    })
    .await;
    drop(peer);
    // The agent has heard more: that the command ended, and that it may forget the bytes.
    let mut params = house.hello(&identity, 1);
    params.store_position = house.store.position().position.0 + 1_000;
    let mut peer = house.dial(&identity, 2);
    peer.hello(&params).await;
    peer.welcome().await;
    let judged = peer.settle(vec![tombstone(&command)]).await;
    let [judged] = judged.as_slice() else { panic!("one item") };
    assert_eq!(judged.action(), Action::Continue);
    let failed = wire::CommandResult { outcome: wire::Outcome::Failed.into(), exit_code: 3, ..result(&command, 9) };
    peer.send(Body::CommandResult(failed)).await;
    assert_eq!(peer.acked().await.to_wire(), command.uid);
    let row = house.service.command(&house.admin, id).await.unwrap();
    assert!(row.complete());
    let end = row.command.end.unwrap();
    assert_eq!((row.command.phase, end.exit_code, end.error), (Phase::Failed, Some(3), None));
    let read = |offset| house.store.read_output(id, StreamName::Stdout, offset, 100);
    assert_eq!(read(0).await.unwrap(), OutputRead::Bytes("abc".into()));
    assert!(matches!(read(3).await.unwrap(), OutputRead::Gap(gap) if gap.length == 6));
}

#[tokio::test]
async fn a_tombstone_that_the_store_does_not_know_becomes_history() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut params = house.hello(&identity, 1);
    params.store_position = house.store.position().position.0 + 1_000;
    let mut peer = house.dial(&identity, 1);
    peer.hello(&params).await;
    peer.welcome().await;
    // One that the lost life gave out.
    let command = remembered(identity.generation.0, 9, 1);
    let judged = peer.settle(vec![tombstone(&command)]).await;
    assert_eq!(judged.first().map(wire::ReconcileItem::action), Some(Action::Describe));
    // The end comes right behind the description, before the answer to it.
    describe(&mut peer, tombstone(&command), &command).await;
    peer.finish(&command, 7).await;
    let judged = reconciled(&mut peer).await;
    assert_eq!(judged.first().map(wire::ReconcileItem::action), Some(Action::Continue));
    // The agent may say what is gone, also when everything was said already.
    let gone = wire::CommandOutput { gap: 7, end: true, ..output(&command, 0, b"") };
    peer.send(Body::CommandOutput(gone)).await;
    wait_for("the end", || async {
        let row = house.store.command_by_uid(&Uid([9; 16])).await.unwrap().unwrap();
        (row.phase == Phase::Succeeded && row.result_acked).then_some(())
    })
    .await;
    let row = house.store.command_by_uid(&Uid([9; 16])).await.unwrap().unwrap();
    assert_eq!((row.id, row.created_at), (CommandId(1), command.created_ms));
    assert_eq!((row.request.operation.as_str(), row.request.args.as_str()), ("unknown", "{}"));
    let stdout = row.streams.iter().find(|stream| stream.name == StreamName::Stdout).unwrap();
    assert!(stdout.end && stdout.length == 7 && stdout.gaps.iter().map(|gap| gap.length).sum::<u64>() == 7);
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_taken_in() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let command = remembered(identity.generation.0, 9, 1);
    describe(&mut peer, item(&command, wire::CommandPhase::Running), &command).await;
    assert_eq!(reconciled(&mut peer).await, []);
    peer.finish(&command, 0).await;
    assert_eq!(peer.nak().await, nak::Code::Unknown);
    assert_eq!(house.store.command_by_uid(&Uid([9; 16])).await.unwrap(), None);
}

#[tokio::test]
async fn gaps_without_number_neither_fill_the_memory_nor_end_the_session() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    // Not one of them touches the next, and no credit is spent on any.
    let most = 20_000_u64;
    for number in 0..most {
        let gap = wire::CommandOutput { gap: 1, ..output(&command, number * 2, b"") };
        peer.send(Body::CommandOutput(gap)).await;
        peer.output(&command, number * 2 + 1, b"x").await;
    }
    peer.finish(&command, most * 2).await;
    assert_eq!(peer.acked().await.to_wire(), command.uid);
    let row = house.service.command(&house.admin, id).await.unwrap();
    let stdout = row.command.streams.first().unwrap();
    assert_eq!((stdout.length, stdout.gaps.len()), (most * 2, 1_001));
}

#[tokio::test]
async fn an_agent_that_sends_only_nonsense_is_sent_away_in_the_end() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let nonsense = wire::CommandResult { uid: vec![1; 15].into(), ..Default::default() };
    for _ in 0..1_000 {
        peer.send(Body::CommandResult(nonsense.clone())).await;
        assert_eq!(peer.nak().await, nak::Code::Invalid);
    }
    peer.nothing_waits().await;
    peer.send(Body::CommandResult(nonsense)).await;
    assert_eq!(peer.bye().await.0, bye::Code::ProtocolError);
    house.connect(&identity, 1).await;
}
