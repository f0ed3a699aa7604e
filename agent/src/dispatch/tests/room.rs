//! A disk without room, and what a command costs on it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::id::Uid;
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{Command, ResultAck};
use tokio::time::{sleep, timeout};

use super::bed::{Bed, NOW, fill_tombstones, prepare, put, run};
use crate::commands::StateDir;
use crate::dispatch::burial::{self, Delivered};
use crate::dispatch::jobs::{self, Done, Shim};

fn names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn until(condition: impl Fn() -> bool) {
    let bounded = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), bounded).await.unwrap();
}

#[tokio::test]
async fn a_command_for_which_there_is_no_room_is_refused_with_that_code() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    fill_tombstones(&bed.home.state, NOW);
    // One whose validity has passed needs room for its tombstone.
    manager.say(Body::Command(Command { expires_ms: NOW, ..run(Uid::random(), 7) })).await;
    let (_, ack) = manager.ack().await;
    assert_eq!((ack.answer(), ack.code.as_str()), (Answer::Refused, "no_space"));
}

#[tokio::test]
async fn on_a_full_disk_delivered_output_goes_before_its_tombstone_and_the_record_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let (home, uid) = (&bed.home, Uid::random());
    let command = run(uid, 7);
    prepare(&home.state, &command, b"output");
    let dir = home.state.command(uid);
    let full = fill_tombstones(&home.state, command.expires_ms);
    let bury = || {
        let one = Delivered { uid, id: 7, generation: command.generation, expires_ms: command.expires_ms };
        match burial::forget(home, vec![one]) {
            Done::Forgot { failed, .. } => failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error)),
            other => panic!("{other:?}"),
        }
    };
    assert!(bury().is_err_and(|error| error.is_full()));
    assert_eq!(names(&dir), set(&["record", "wake"]), "the record alone prevents a second run");
    std::fs::remove_file(full).unwrap();
    bury().unwrap();
    assert!(!dir.exists());
    assert_eq!(home.tombstones.get(uid).unwrap().map(|known| known.end.streams.len()), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_full_is_tidied_up_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let uid = Uid::random();
    let command = run(uid, 7);
    prepare(&state, &command, b"");
    drop(state);
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let full = fill_tombstones(&bed.home.state, command.expires_ms);
    let (mut manager, _) = bed.connect(1, 1 << 20).await;
    manager.want(uid, Action::Continue).await;
    manager.result().await;
    manager.say(Body::ResultAck(ResultAck { uid: uid.to_wire(), store_position: 0 })).await;
    let dir = bed.home.state.command(uid);
    // The clock of these tests runs only while nobody works.
    until(|| names(&dir) == set(&["record", "wake"])).await;
    std::fs::remove_file(full).unwrap();
    until(|| !dir.exists()).await;
}

#[tokio::test]
async fn one_command_that_cannot_be_forgotten_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let home = &bed.home;
    let commands: Vec<_> = [0, 3_600_000, 0]
        .into_iter()
        .map(|more| Command { expires_ms: NOW + more, ..run(Uid::random(), more + 7) })
        .collect();
    let broken = home.state.tombstones().join(((NOW + 7_200_000) / 3_600_000).to_string());
    std::fs::create_dir(&broken).unwrap();
    let mut delivered = Vec::new();
    for command in &commands {
        prepare(&home.state, command, b"output");
        let uid = Uid::from_wire(&command.uid).unwrap();
        delivered.push(Delivered {
            uid,
            id: command.id,
            generation: command.generation,
            expires_ms: command.expires_ms,
        });
    }
    let uids: Vec<_> = delivered.iter().map(|one| one.uid).collect();
    let Done::Forgot { gone, failed } = burial::forget(home, delivered) else { panic!("not forgotten") };
    assert_eq!(gone, [uids[0], uids[2]]);
    assert_eq!(failed.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [uids[1]]);
    let dirs: Vec<_> = uids.iter().map(|uid| home.state.command(*uid).exists()).collect();
    assert_eq!(dirs, [false, true, false]);
    let origin = home.tombstones.get(uids[0]).unwrap().and_then(|stone| stone.origin).unwrap();
    assert_eq!((origin.generation, origin.operation.as_str()), (commands[0].generation, "command.run"));
}

#[tokio::test]
async fn only_a_second_shim_leaves_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let uid = put(&bed.home.state, &run(Uid::random(), 7));
    for (shim, left) in [(Shim::First, set(&["record", "wake"])), (Shim::Again, set(&["record", "spawn.2", "wake"]))] {
        let Done::Spawned(_, child) = jobs::spawn(&bed.home, uid, shim, u64::MAX) else { panic!("not spawned") };
        child.unwrap().wait().await.unwrap();
        assert_eq!(names(&bed.home.state.command(uid)), left, "{shim:?}");
    }
}
