//! Output, results and reconciliation.

use common::id::Uid;
use common::model::{Outcome, StreamName};
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{CommandPhase, OutputCredit, Reconcile, ReconcileItem, ResultAck, StreamLength};

use super::bed::{Bed, Manager, ping, prepare, run};
use crate::commands::StateDir;

/// Takes frames until the stream has ended, granting `step` bytes beyond what arrived; checks that no byte came
/// without a grant.
async fn take(manager: &mut Manager, uid: Uid, from: u64, credit: u64, step: u64) -> (Vec<u8>, usize) {
    let (mut bytes, mut results) = (Vec::new(), 0);
    let mut granted = from + credit;
    loop {
        match manager.hear().await.body {
            Some(Body::CommandOutput(output)) => {
                assert_eq!(output.offset, from + bytes.len() as u64, "in order, without holes");
                bytes.extend_from_slice(&output.data);
                let at = from + bytes.len() as u64;
                assert!(at <= granted, "{at} bytes came, {granted} were granted");
                if output.end {
                    return (bytes, results);
                }
                if at == granted {
                    granted = at + step;
                    let stream = StreamName::Stdout.to_wire();
                    let credit = OutputCredit { uid: uid.to_wire(), stream, offset: granted, session_bytes: 0 };
                    manager.say(Body::OutputCredit(credit)).await;
                }
            }
            Some(Body::CommandResult(_)) => results += 1,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn output_is_exact_stays_within_credit_and_says_where_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..700_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let uid = Uid::random();
    prepare(&StateDir::open(folder.path()).unwrap(), &run(uid, 7), &content);
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let (mut manager, first) = bed.connect(1, 100_000).await;
    let item = &first.items[0];
    assert_eq!((item.phase(), item.id, item.streams[0].length), (CommandPhase::Ended, 7, content.len() as u64));
    manager.want(uid, Action::Continue).await;
    let (bytes, results) = take(&mut manager, uid, 0, 100_000, 77_777).await;
    assert!(bytes == content, "{} of {} bytes", bytes.len(), content.len());
    assert_eq!(results, 1, "the result may overtake");
}

#[tokio::test]
async fn a_manager_that_has_some_bytes_gets_the_rest_only() {
    let folder = tempfile::tempdir().unwrap();
    let content = vec![b'x'; 100_000];
    let uid = Uid::random();
    prepare(&StateDir::open(folder.path()).unwrap(), &run(uid, 7), &content);
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let (mut manager, _) = bed.connect(1, 1 << 20).await;
    let streams = vec![StreamLength { stream: StreamName::Stdout.to_wire(), length: 99_990 }];
    let item = ReconcileItem { uid: uid.to_wire(), action: Action::Continue.into(), streams };
    manager.say(Body::Reconcile(Reconcile { items: vec![item], last: true })).await;
    let (bytes, _) = take(&mut manager, uid, 99_990, 1 << 20, 1).await;
    assert_eq!(bytes.len(), 10);
}

#[tokio::test]
async fn bytes_that_are_lost_are_an_explicit_gap() {
    let folder = tempfile::tempdir().unwrap();
    let uid = Uid::random();
    let state = StateDir::open(folder.path()).unwrap();
    prepare(&state, &run(uid, 7), &[b'x'; 100]);
    let path = state.command(uid).join(format!("stdout.{:020}", 0));
    std::fs::write(path, [b'x'; 60]).unwrap();
    drop(state);
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let (mut manager, _) = bed.connect(1, 1 << 20).await;
    manager.want(uid, Action::Continue).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let Some(Body::CommandOutput(output)) = manager.hear().await.body {
            seen.push((output.offset, output.data.len(), output.gap, output.end));
        }
    }
    assert_eq!(seen, [(0, 60, 0, false), (60, 0, 40, true)]);
}

#[tokio::test]
async fn a_result_is_sent_again_after_a_reconnect_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(ping(uid, 7))).await;
    manager.ack().await;
    let result = manager.result().await;
    drop(manager);

    let (mut manager, first) = bed.connect(1, 1 << 20).await;
    assert_eq!(first.items.len(), 1);
    assert_eq!(first.items[0].phase(), CommandPhase::Ended);
    manager.want(uid, Action::Continue).await;
    assert_eq!(manager.result().await, result);
    manager.say(Body::ResultAck(ResultAck { uid: uid.to_wire(), store_position: 1 })).await;
    drop(manager);
    bed.connect_until(1, |first| first.items.is_empty()).await;
    assert!(!bed.home.state.command(uid).exists(), "it is forgotten");
}

#[tokio::test]
async fn what_the_manager_has_is_forgotten_and_what_it_does_not_know_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let (known, strange) = (Uid::random(), Uid::random());
    prepare(&state, &run(known, 7), b"a");
    prepare(&state, &run(strange, 8), b"b");
    drop(state);
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let (mut manager, first) = bed.connect(1, 1 << 20).await;
    assert_eq!(first.items.len(), 2);
    let item =
        |uid: Uid, action: Action| ReconcileItem { uid: uid.to_wire(), action: action.into(), streams: Vec::new() };
    let items = vec![item(known, Action::Forget), item(strange, Action::Describe)];
    manager.say(Body::Reconcile(Reconcile { items, last: true })).await;
    let Some(Body::Inventory(described)) = manager.hear().await.body else { panic!("no description") };
    let command: common::wire::Command = prost::Message::decode(described.items[0].command.clone()).unwrap();
    assert_eq!((described.items.len(), command), (1, run(strange, 8)));
    while bed.home.state.command(known).exists() {
        manager.say(Body::Ping(Default::default())).await;
        assert!(matches!(manager.hear().await.body, Some(Body::Pong(_))));
    }
    assert!(bed.home.state.command(strange).exists());
}

#[tokio::test]
async fn a_store_in_another_life_is_told_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(ping(uid, 7))).await;
    manager.ack().await;
    manager.result().await;
    manager.say(Body::ResultAck(ResultAck { uid: uid.to_wire(), store_position: 1 })).await;
    drop(manager);
    let (mut manager, first) = bed.connect_until(2, |first| first.items.iter().all(|item| item.tombstone)).await;
    assert_eq!(first.items.iter().map(|item| item.id).collect::<Vec<_>>(), [7]);
    manager.want(uid, Action::Describe).await;
    assert_eq!(Outcome::from_wire(manager.result().await.outcome), Some(Outcome::Succeeded));
    drop(manager);
    let (_, first) = bed.connect(2, 1 << 20).await;
    assert!(first.items.is_empty(), "once in each life");
}
