//! Delivered directories that stay for a look, and the reserve.

use std::path::Path;
use std::time::Duration;

use common::config::{HumanDuration, Size};
use common::id::Uid;
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{CommandPhase, ResultAck};

use super::actor::until;
use super::bed::{Bed, Manager, Setup, fill_tombstones, prepare, run};
use crate::commands::StateDir;
use crate::config::Keep;

fn keep(count: u32) -> Setup {
    let age = HumanDuration(Duration::from_secs(3600));
    Setup { keep: Keep { age, count, bytes: Size(1 << 30) }, ..Setup::default() }
}

fn kept(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder.join("kept")).unwrap();
    let mut names: Vec<_> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Prepares an ended command; it is delivered with the first session.
fn ended(folder: &Path, id: u64) -> Uid {
    let uid = Uid::random();
    prepare(&StateDir::open(folder).unwrap(), &run(uid, id), b"output");
    uid
}

async fn deliver(bed: &Bed, uid: Uid) -> Manager {
    let (mut manager, first) = bed.connect(1, 1 << 20).await;
    assert_eq!(first.items.len(), 1, "{first:?}");
    manager.want(uid, Action::Continue).await;
    while !matches!(manager.hear().await.body, Some(Body::CommandResult(_))) {}
    manager.say(Body::ResultAck(ResultAck { uid: uid.to_wire(), store_position: 0 })).await;
    manager
}

/// Protocol R-RES-3, R-RES-4.
#[tokio::test]
async fn what_is_kept_is_a_copy_for_people_never_listed_never_started_and_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let uid = ended(folder.path(), 7);
    let bed = Bed::start_with(folder.path(), "/bin/true", keep(10)).await;
    assert!(kept(folder.path()).is_empty(), "nothing is put away before the manager has it");
    let manager = deliver(&bed, uid).await;
    until(|| !bed.home.state.command(uid).exists()).await;
    let names = kept(folder.path());
    assert!(names.len() == 1 && names[0].ends_with(&format!("-{uid}")), "{names:?}");
    let output = folder.path().join("kept").join(&names[0]).join(format!("stdout.{:020}", 0));
    assert_eq!(std::fs::read(output).unwrap(), b"output");
    drop(manager);
    bed.stop().await;

    let bed = Bed::start_with(folder.path(), "/bin/true", keep(10)).await;
    let mut manager = bed.ready().await;
    assert_eq!(kept(folder.path()), names);
    manager.say(Body::Command(run(uid, 7))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!((ack.answer(), ack.phase()), (Answer::Duplicate, CommandPhase::Ended));
    bed.stop().await;

    // Whoever wants nothing kept any more has it gone with the next start.
    let bed = Bed::start(folder.path(), "/bin/true").await;
    assert!(kept(folder.path()).is_empty());
    bed.stop().await;
}

#[tokio::test]
async fn the_oldest_goes_when_there_are_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut uids = Vec::new();
    for id in 1..=3 {
        uids.push(ended(folder.path(), id));
        let bed = Bed::start_with(folder.path(), "/bin/true", keep(2)).await;
        deliver(&bed, uids[uids.len() - 1]).await;
        until(|| bed.home.state.list().unwrap().is_empty() && kept(folder.path()).len() <= 2).await;
        bed.stop().await;
    }
    let names = kept(folder.path());
    assert_eq!(names.len(), 2);
    assert!(names[0].ends_with(&uids[1].to_string()) && names[1].ends_with(&uids[2].to_string()), "{names:?}");
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_what_is_kept_and_the_reserve_are_given_up_and_the_reserve_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let first = ended(folder.path(), 1);
    let setup = || Setup { reserve: 128 * 1024, ..keep(10) };
    let bed = Bed::start_with(folder.path(), "/bin/true", setup()).await;
    let reserve = folder.path().join("reserve");
    assert!(reserve.exists());
    deliver(&bed, first).await;
    until(|| kept(folder.path()).len() == 1).await;
    bed.stop().await;

    let second = ended(folder.path(), 2);
    let bed = Bed::start_with(folder.path(), "/bin/true", setup()).await;
    // The tombstone of the first has its file; this one has no room for it.
    let hour = (super::bed::NOW + 60_000 + 3_600_000) / 3_600_000;
    let stones = bed.home.state.tombstones().join(hour.to_string());
    std::fs::rename(&stones, folder.path().join("aside")).unwrap();
    let full = fill_tombstones(&bed.home.state, super::bed::NOW + 60_000);
    let manager = deliver(&bed, second).await;
    until(|| kept(folder.path()).is_empty() && !reserve.exists()).await;
    assert!(bed.home.reserve.is_missing());
    assert!(bed.home.state.command(second).exists(), "its record still prevents a second run");
    std::fs::remove_file(full).unwrap();
    std::fs::rename(folder.path().join("aside"), stones).unwrap();
    until(|| reserve.exists() && !bed.home.state.command(second).exists()).await;
    assert!(bed.home.reserve.is_held());
    drop(manager);
}
