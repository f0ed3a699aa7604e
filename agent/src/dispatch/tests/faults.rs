//! Shims that fail, peers that misbehave.

use std::time::Duration;

use common::id::Uid;
use common::model::Outcome;
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{Command, CommandCancel, CommandPhase, Nak, ServerHello, bye, nak};

use super::bed::{Bed, GENERATION, NOW, ping, put, run};
use crate::commands::{RecordLock, Start, StateDir};
use crate::link;

#[tokio::test]
async fn a_shim_that_dies_before_the_start_is_tried_three_times_and_then_that_is_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(run(uid, 7))).await;
    manager.ack().await;
    let result = manager.result().await;
    assert_eq!(Outcome::from_wire(result.outcome), Some(Outcome::Failed));
    assert_eq!(result.error_code, "spawn");
    assert_eq!(result.started_ms, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shim_that_cannot_be_executed_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/nonexistent/shim").await;
    let mut manager = bed.ready().await;
    manager.say(Body::Command(run(Uid::random(), 7))).await;
    manager.ack().await;
    assert_eq!(manager.result().await.error_code, "spawn");
}

#[tokio::test]
async fn a_damaged_record_ends_as_interrupted_and_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let state = crate::commands::StateDir::open(folder.path()).unwrap();
    let uid = Uid::random();
    super::bed::prepare(&state, &run(uid, 7), b"x");
    let path = state.command(uid).join("record");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    drop(state);
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let (mut manager, first) = bed.connect(1, 1 << 20).await;
    assert_eq!(first.items.len(), 1);
    manager.want(uid, common::wire::reconcile_item::Action::Continue).await;
    let result = manager.result().await;
    assert_eq!(Outcome::from_wire(result.outcome), Some(Outcome::Interrupted));
    assert_eq!((result.error_code.as_str(), result.lengths_are_lower_bounds), ("record_corrupt", true));
    assert!(!bed.home.state.command(uid).exists());
    assert!(folder.path().join("quarantine").join(uid.to_string()).exists());
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_held_for_a_moment_does_not_wait_for_the_next_scan() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let uid = put(&state, &run(Uid::random(), 7));
    // A shim was killed; the process it had just made still has its copy of the lock, and nobody reads `wake`.
    let mut lock = RecordLock::try_take(&state.command(uid)).unwrap().unwrap();
    lock.append_start(Start::new("another".to_owned(), 1, 1, 77)).unwrap();
    drop(state);
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let (mut manager, first) = bed.connect(1, 1 << 20).await;
    assert_eq!(first.items[0].phase(), CommandPhase::Running);
    manager.want(uid, Action::Continue).await;
    assert!(matches!(manager.hear().await.body, Some(Body::CommandProgress(_))));
    let held = tokio::time::Instant::now();
    drop(lock);
    let result = manager.result().await;
    assert_eq!(Outcome::from_wire(result.outcome), Some(Outcome::Interrupted));
    assert!(held.elapsed() < Duration::from_secs(1), "{:?}", held.elapsed());
}

#[tokio::test]
async fn a_result_that_the_manager_refuses_is_kept_and_not_sent_again_in_this_session() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(ping(uid, 7))).await;
    manager.ack().await;
    let frame = manager.hear().await;
    assert!(matches!(frame.body, Some(Body::CommandResult(_))));
    let nak = Nak { code: nak::Code::Invalid.into(), reason: "a hash has not 32 bytes".into() };
    manager.answer(frame.seq, Body::Nak(nak)).await;
    // Neither the command again nor a reconciliation brings it back.
    manager.say(Body::Command(ping(uid, 7))).await;
    assert_eq!(manager.ack().await.1.answer(), Answer::Duplicate);
    manager.want(uid, Action::Continue).await;
    manager.say(Body::Ping(Default::default())).await;
    assert!(matches!(manager.hear().await.body, Some(Body::Pong(_))));
    drop(manager);

    let (mut manager, first) = bed.connect(1, 1 << 20).await;
    assert_eq!(first.items[0].phase(), CommandPhase::Ended, "it is kept");
    manager.want(uid, Action::Continue).await;
    manager.result().await;
}

#[tokio::test]
async fn a_frame_in_the_wrong_phase_ends_the_session_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    manager.say(Body::ServerHello(ServerHello::default())).await;
    let frames = manager.hear_close().await;
    let last = frames.last().and_then(|frame| frame.body.clone());
    assert!(matches!(last, Some(Body::Bye(bye)) if bye.code() == bye::Code::ProtocolError), "{frames:?}");
    assert!(matches!(manager.end().await, link::End::Violation(_)));
    bed.ready().await;
}

#[tokio::test]
async fn a_goodbye_reaches_the_supervisor_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let bye = common::wire::Bye { code: bye::Code::Draining.into(), reason: "soon back".into(), retry_after_ms: 5 };
    manager.say(Body::Bye(bye)).await;
    let end = manager.end().await;
    assert!(matches!(end, link::End::Bye { code: bye::Code::Draining, .. }), "{end:?}");
}

#[tokio::test]
async fn stopping_says_goodbye() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let (frames, ()) = tokio::join!(manager.hear_close(), bed.stop());
    let last = frames.last().and_then(|frame| frame.body.clone());
    assert!(matches!(last, Some(Body::Bye(bye)) if bye.code() == bye::Code::Normal), "{frames:?}");
}

/// Protocol R-CMD-2.
#[tokio::test(start_paused = true)]
async fn a_command_whose_place_is_not_durable_is_put_off_and_runs_once_when_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/nonexistent/shim").await;
    let mut manager = bed.ready().await;
    bed.home.state.break_sync(true);
    let uid = Uid::random();
    manager.say(Body::Command(run(uid, 7))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!(ack.answer(), Answer::Deferred);
    assert!(ack.deferred_until_ms > NOW);
    manager.say(Body::Command(run(uid, 7))).await;
    assert_eq!(manager.ack().await.1.answer(), Answer::Deferred, "still not");
    assert!(!bed.home.state.command(uid).join("spawn.2").exists(), "nothing was started");
    bed.home.state.break_sync(false);
    manager.say(Body::Command(run(uid, 7))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!((ack.answer(), ack.phase()), (Answer::Duplicate, CommandPhase::Accepted));
    assert_eq!(manager.result().await.error_code, "spawn");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_cancelled_before_its_place_is_durable_never_runs() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    bed.home.state.break_sync(true);
    let uid = Uid::random();
    manager.say(Body::Command(run(uid, 7))).await;
    assert_eq!(manager.ack().await.1.answer(), Answer::Deferred);
    let cancel = || {
        Body::CommandCancel(CommandCancel {
            uid: uid.to_wire(),
            id: 7,
            by: "admin".into(),
            generation: GENERATION,
            expires_ms: NOW + 60_000,
            ..CommandCancel::default()
        })
    };
    let seq = manager.say(cancel()).await;
    let frame = manager.hear().await;
    assert!(matches!(frame.body, Some(Body::Nak(nak)) if nak.code() == nak::Code::Busy && frame.reply_to == seq));
    bed.home.state.break_sync(false);
    let seq = manager.say(cancel()).await;
    let frame = manager.hear().await;
    assert!(matches!(frame.body, Some(Body::Ack(_))) && frame.reply_to == seq, "{frame:?}");
    // Nobody sent the command again, so its end waits for the next session.
    drop(manager);
    let (mut manager, first) =
        bed.connect_until(1, |first| first.items.iter().any(|item| item.tombstone || item.id == 7)).await;
    assert_eq!(first.items.len(), 1);
    manager.want(uid, Action::Continue).await;
    assert_eq!(Outcome::from_wire(manager.result().await.outcome), Some(Outcome::Cancelled));
}

#[tokio::test]
async fn a_command_whose_tombstone_cannot_be_read_is_put_off_and_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    let command = Command { expires_ms: NOW, ..run(uid, 7) };
    manager.say(Body::Command(command.clone())).await;
    assert_eq!(manager.ack().await.1.answer(), Answer::Expired);
    manager.result().await;
    for file in std::fs::read_dir(bed.home.state.tombstones()).unwrap() {
        std::fs::write(file.unwrap().path(), b"PAPTOM1\n").unwrap();
    }
    manager.say(Body::Command(command)).await;
    assert_eq!(manager.ack().await.1.answer(), Answer::Deferred);
}
