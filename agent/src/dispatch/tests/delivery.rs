//! Output, results and reconciliation.

use std::time::Duration;

use common::id::Uid;
use common::model::{Outcome, StreamName};
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{Command, CommandPhase, OutputCredit, Reconcile, ReconcileItem, ResultAck, StreamLength};

use super::bed::{Bed, GENERATION, Manager, ping, prepare, put, run};
use crate::commands::{RecordLock, Start, StateDir};

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

/// Protocol R-CREDIT-1, R-RES-1.
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

/// Protocol R-OUT-3.
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

/// What cannot be read of a stream: a folder in the place of its file.
fn spoil(state: &StateDir, uid: Uid, start: u64) -> std::path::PathBuf {
    let path = state.command(uid).join(format!("stdout.{start:020}"));
    std::fs::remove_file(&path).ok();
    std::fs::create_dir(&path).unwrap();
    path
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_after_the_end_is_a_gap_and_what_follows_it_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let uid = Uid::random();
    let state = StateDir::open(folder.path()).unwrap();
    prepare(&state, &run(uid, 7), &[b'x'; 100]);
    spoil(&state, uid, 0);
    std::fs::write(state.command(uid).join(format!("stdout.{:020}", 60)), [b'y'; 40]).unwrap();
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
    assert_eq!(seen, [(0, 0, 60, false), (60, 40, 0, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_while_the_command_runs_is_tried_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let uid = put(&state, &run(Uid::random(), 7));
    let mut lock = RecordLock::try_take(&state.command(uid)).unwrap().unwrap();
    lock.append_start(Start::new("another".to_owned(), 1, 1, 77)).unwrap();
    let path = spoil(&state, uid, 0);
    drop(state);
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let (mut manager, first) = bed.connect(1, 1 << 20).await;
    assert!(first.items[0].streams[0].length > 0);
    manager.want(uid, Action::Continue).await;
    assert!(matches!(manager.hear().await.body, Some(Body::CommandProgress(_))));
    // The clock of these tests runs only while nobody works: far longer than the tries after an end.
    tokio::time::sleep(Duration::from_secs(40)).await;
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, [b'x'; 10_000]).unwrap();
    let mut bytes = 0;
    while bytes < 10_000 {
        match manager.hear().await.body {
            Some(Body::CommandOutput(output)) => {
                assert_eq!((output.offset, output.gap, output.end), (bytes, 0, false));
                bytes += output.data.len() as u64;
            }
            Some(Body::Ping(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Protocol R-RES-3.
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

/// Protocol R-BYE-1.
#[tokio::test]
async fn a_goodbye_replaces_no_report() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(ping(uid, 7))).await;
    manager.ack().await;
    let result = manager.result().await;
    let bye = common::wire::Bye { code: common::wire::bye::Code::Normal.into(), ..Default::default() };
    manager.say(Body::Bye(bye)).await;
    assert!(matches!(manager.end().await, crate::link::End::Bye { .. }));

    let (mut manager, first) = bed.connect(1, 1 << 20).await;
    assert_eq!(first.items[0].phase(), CommandPhase::Ended);
    manager.want(uid, Action::Continue).await;
    assert_eq!(manager.result().await, result);
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

/// Protocol R-INV-4.
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
    let (manager, first) = bed.connect_until(2, |first| first.items.iter().all(|item| item.tombstone)).await;
    assert_eq!(first.items.iter().map(|item| item.id).collect::<Vec<_>>(), [7]);
    drop(manager);
    let (mut manager, first) = bed.connect(2, 1 << 20).await;
    assert_eq!(first.items.len(), 1, "nothing was answered: it is said again");
    manager.want(uid, Action::Continue).await;
    assert_eq!(Outcome::from_wire(manager.result().await.outcome), Some(Outcome::Succeeded));
    drop(manager);
    let (mut manager, first) = bed.connect(2, 1 << 20).await;
    assert_eq!(first.items.len(), 1, "the result was lost on its way: it is said again");
    manager.want(uid, Action::Continue).await;
    manager.result().await;
    manager.say(Body::ResultAck(ResultAck { uid: uid.to_wire(), store_position: 1 })).await;
    drop(manager);
    let (_, first) = bed.connect(2, 1 << 20).await;
    assert!(first.items.is_empty(), "once in each life");
}

/// Protocol R-INV-3: the host has a new bearer's name, and an old one's command that was never started stays so.
#[tokio::test]
async fn what_another_bearer_of_the_name_accepted_is_ended_without_a_shim() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let theirs = Command { generation: GENERATION - 1, ..run(Uid::random(), 7) };
    let uid = put(&state, &theirs);
    drop(state);
    // A shim that cannot be started: an attempt would end the command as failed, with code `spawn`.
    let bed = Bed::start(folder.path(), "/nowhere/shim").await;
    let has_ended = |first: &common::wire::Inventory| {
        first.items.iter().any(|item| item.uid == uid.to_wire() && item.phase() == CommandPhase::Ended)
    };
    let (mut manager, _) = bed.connect_until(1, has_ended).await;
    manager.want(uid, Action::Continue).await;
    let result = manager.result().await;
    assert_eq!(Outcome::from_wire(result.outcome), Some(Outcome::Cancelled), "{result:?}");
    assert!(result.cancel_reason.contains("another bearer"), "{result:?}");
}
