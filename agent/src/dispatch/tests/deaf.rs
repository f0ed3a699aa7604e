//! Shims that were stopped or hang while somebody wants their command to end.

use common::id::Uid;
use common::model::Outcome;
use common::wire::CommandCancel;
use common::wire::frame::Body;
use rustix::process::{Pid, Signal, kill_process};

use super::actor::{self, until};
use super::bed::{Bed, GENERATION, Manager, NOW, run};
use crate::commands::{RecordLock, Start, request};
use crate::dispatch::deaf;
use crate::dispatch::jobs::Done;
use crate::shim::process;

/// The process whose last words are those of the shim of this directory. What it forks has the same words for a moment,
/// and another parent.
fn shim(bed: &Bed, uid: Uid) -> i32 {
    let end = format!("\0shim\0{}\0", bed.home.state.command(uid).display()).into_bytes();
    let ours = std::process::id().cast_signed();
    let is_it = |pid: &i32| {
        process::stat(*pid).is_some_and(|stat| stat.parent == ours)
            && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(&end))
    };
    process::pids().find(is_it).unwrap()
}

fn stops(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
}

fn is_stopped(pid: i32) -> bool {
    process::stat(pid).is_some_and(|stat| stat.stopped)
}

/// A command that was started by a shim which reads what wakes it and does nothing else.
async fn started(bed: &Bed, manager: &mut Manager) -> (Uid, i32) {
    let uid = Uid::random();
    manager.say(Body::Command(run(uid, 7))).await;
    let dir = bed.home.state.command(uid);
    until(|| dir.join("ran").exists()).await;
    let start = Start { isolation: "best_effort".into(), ..Start::new("boot".to_owned(), 1, 1, 77) };
    RecordLock::try_take(&dir).unwrap().unwrap().append_start(start).unwrap();
    (uid, shim(bed, uid))
}

fn cancel(uid: Uid) -> Body {
    Body::CommandCancel(CommandCancel {
        uid: uid.to_wire(),
        id: 7,
        by: "admin".into(),
        expires_ms: NOW + 60_000,
        generation: GENERATION,
        ..CommandCancel::default()
    })
}

#[tokio::test]
async fn a_shim_that_was_stopped_is_sent_on_when_its_command_is_cancelled_and_each_time_again() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), &actor::program(folder.path())).await;
    let mut manager = bed.ready().await;
    let (uid, pid) = started(&bed, &mut manager).await;
    stops(pid);
    until(|| is_stopped(pid)).await;
    manager.say(cancel(uid)).await;
    until(|| !is_stopped(pid)).await;
    assert!(process::stat(pid).is_some_and(|stat| !stat.zombie), "it lives");
    stops(pid);
    until(|| !is_stopped(pid)).await;
    actor::let_go(&bed.home.state);
}

#[tokio::test]
async fn nobody_sends_a_stopped_shim_on_whose_command_nobody_wants_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), &actor::program(folder.path())).await;
    let mut manager = bed.ready().await;
    let (uid, pid) = started(&bed, &mut manager).await;
    stops(pid);
    until(|| is_stopped(pid)).await;
    // Two bytes: the program that reads for the shim may still take one.
    for _ in 0..2 {
        request::wake(&bed.home.state.command(uid)).unwrap();
    }
    let Done::Deaf { hearing, unasked } = deaf::look(&bed.home, vec![(uid, true)]) else { panic!("another answer") };
    assert_eq!((hearing, unasked), (Vec::new(), vec![uid]));
    assert!(is_stopped(pid));
    kill_process(Pid::from_raw(pid).unwrap(), Signal::CONT).unwrap();
    actor::let_go(&bed.home.state);
}

#[tokio::test]
async fn a_shim_that_does_not_hear_for_too_long_is_killed_and_its_command_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), &actor::program(folder.path())).await;
    let mut manager = bed.ready().await;
    let (uid, pid) = started(&bed, &mut manager).await;
    stops(pid);
    until(|| is_stopped(pid)).await;
    let dir = bed.home.state.command(uid);
    request::cancel(&dir, &request::CancelRequest { by: "admin".into(), reason: String::new(), grace_ms: None })
        .unwrap();
    request::wake(&dir).unwrap();
    let look = |enough| deaf::look(&bed.home, vec![(uid, enough)]);
    assert!(matches!(look(true), Done::Deaf { hearing, unasked } if hearing.is_empty() && unasked.is_empty()));
    until(|| process::stat(pid).is_none_or(|stat| stat.zombie)).await;
    loop {
        if let Some(Body::CommandResult(result)) = manager.hear().await.body {
            let outcome = Outcome::from_wire(result.outcome);
            assert_eq!(outcome, Some(Outcome::Interrupted), "{result:?}");
            break;
        }
    }
}
