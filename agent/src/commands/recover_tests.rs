//! Tests of recovery that need no process; those with processes are in `tests/process.rs`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use common::model::StreamName;
use common::wire;
use prost::Message;
use tempfile::TempDir;

use super::*;
use crate::commands::accept::{NewCommand, accept_many};
use crate::commands::request::{self, CancelRequest};

const EXPIRES: u64 = 1_000;

fn accepted() -> (TempDir, StateDir, Uid) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let uid = Uid::random();
    let message = wire::Command { uid: uid.to_wire(), id: 1, expires_ms: EXPIRES, ..Default::default() };
    let new =
        NewCommand { uid, accepted_ms: 1, raw: message.encode_to_vec().into(), sealed: bytes::Bytes::new(), end: None };
    assert!(accept_many(&state, &[new]).iter().all(Result::is_ok));
    (folder, state, uid)
}

fn run(state: &StateDir, uid: Uid, now_ms: u64) -> Recovered {
    recover(state, &Base::BestEffort, uid, now_ms).unwrap()
}

fn ended(recovered: Recovered) -> (Outcome, String) {
    match recovered {
        Recovered::Ended(end) => (end.outcome, end.error.map(|error| error.code).unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_held_lock_means_that_a_shim_is_at_work() {
    let (_folder, state, uid) = accepted();
    let _shim = RecordLock::try_take(&state.command(uid)).unwrap();
    assert_eq!(run(&state, uid, EXPIRES), Recovered::Held);
    assert_eq!(cancel_before_start(&state.command(uid), "a", "b").unwrap(), None);
}

#[test]
fn what_was_never_started_is_started_while_it_is_valid() {
    let (_folder, state, uid) = accepted();
    assert_eq!(run(&state, uid, EXPIRES - 1), Recovered::Respawn);
    assert_eq!(ended(run(&state, uid, EXPIRES)), (Outcome::Expired, "expired".into()));
    assert_eq!(ended(run(&state, uid, 0)), (Outcome::Expired, "expired".into()));
}

#[test]
fn after_three_shims_it_is_given_up() {
    let (_folder, state, uid) = accepted();
    // The first one left no note.
    for count in 2..=MAX_SPAWNS {
        assert_eq!(run(&state, uid, 0), Recovered::Respawn);
        assert_eq!(note_respawn(&state.command(uid)).unwrap(), count);
    }
    assert_eq!(ended(run(&state, uid, 0)), (Outcome::Failed, "spawn".into()));
}

#[test]
fn a_start_without_an_end_is_interrupted_with_what_was_found() {
    for (boot, code) in [(process::boot_id().unwrap(), "shim_killed"), ("another".to_owned(), "reboot")] {
        let (_folder, state, uid) = accepted();
        let dir = state.command(uid);
        let mut lock = RecordLock::try_take(&dir).unwrap().unwrap();
        lock.append_start(Start::new(boot, i32::MAX.unsigned_abs(), 1, 77)).unwrap();
        drop(lock);
        fs::write(dir.join(segment::name(StreamName::Stdout, 0)), b"abc").unwrap();
        let Recovered::Ended(end) = run(&state, uid, 0) else { panic!("not ended") };
        assert_eq!((end.outcome, end.error.as_ref().unwrap().code.as_str()), (Outcome::Interrupted, code));
        assert!(end.lower_bounds && end.changed);
        assert_eq!((end.length(StreamName::Stdout), end.started_ms), (3, 77));
        let result = end.to_result(uid, 1);
        assert_eq!(result.streams[0].segments[0].hash, blake3::hash(b"abc").as_bytes().as_slice());
        assert_eq!(record::read(&dir).unwrap().end, Some(*end));
    }
}

#[test]
fn a_cancel_before_the_start_ends_it_for_good() {
    let (_folder, state, uid) = accepted();
    let dir = state.command(uid);
    let end = cancel_before_start(&dir, "admin", "late").unwrap().unwrap();
    assert_eq!(
        (end.outcome, end.cancelled_by.as_str(), end.cancel_reason.as_str()),
        (Outcome::Cancelled, "admin", "late")
    );
    assert_eq!(run(&state, uid, 0), Recovered::Ended(Box::new(end.clone())));
    assert_eq!(cancel_before_start(&dir, "other", "").unwrap(), Some(end));
}

#[test]
fn a_request_that_no_shim_saw_is_not_forgotten() {
    let (_folder, state, uid) = accepted();
    let request = CancelRequest { by: "admin".into(), reason: "r".into(), grace_ms: None };
    request::cancel(&state.command(uid), &request).unwrap();
    assert_eq!(ended(run(&state, uid, 0)).0, Outcome::Cancelled);
}

#[test]
fn a_damaged_record_is_an_error_and_can_be_put_aside() {
    let (_folder, state, uid) = accepted();
    let path = state.command(uid).join(record::FILE);
    fs::write(&path, b"rubbish").unwrap();
    assert!(matches!(recover(&state, &Base::BestEffort, uid, 0), Err(RecordError::Corrupt { .. })));
    assert!(salvage(&state, uid).is_none());
    let aside = state.quarantine(uid).unwrap();
    assert_eq!(fs::read(aside.join(record::FILE)).unwrap(), b"rubbish");
    assert!(state.list().unwrap().is_empty());
}

#[test]
fn survivors_are_named_as_far_as_a_text_for_people_goes() {
    assert_eq!(name_survivors(&[12, 13]), "still alive after 5 s of kills: pids 12 13");
    let many: Vec<i32> = (4_194_000..4_195_000).collect();
    let text = name_survivors(&many);
    assert!(text.ends_with("4194015 and 984 more"), "{text}");
    let end = End::interrupted(Evidence::ShimKilled, 1).error.unwrap();
    assert!(end.text.len() + 2 + text.len() <= 2 * common::limits::MAX_TEXT_BYTES);
}
