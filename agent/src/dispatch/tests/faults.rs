//! Shims that fail, peers that misbehave.

use common::id::Uid;
use common::model::Outcome;
use common::wire::frame::Body;
use common::wire::{ServerHello, bye};

use super::bed::{Bed, run};
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
