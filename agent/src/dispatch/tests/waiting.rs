//! Places, and who waits for one.

use std::os::fd::AsRawFd;

use common::id::Uid;
use common::limits::GRACE_UNSET;
use common::model::Outcome;
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{Command, CommandCancel, CommandPhase, CommandProgress};

use super::actor::{Actor, let_go, lives, program, until};
use super::bed::{Bed, GENERATION, Manager, NOW, Setup, ping, put_at, run};
use crate::commands::StateDir;

fn one_place() -> Setup {
    Setup { max_running: 1, ..Setup::default() }
}

/// Sends a command and hears that it was accepted.
async fn accepted(manager: &mut Manager, command: Command) -> Uid {
    let uid = Uid::from_wire(&command.uid).unwrap();
    manager.say(Body::Command(command)).await;
    assert_eq!(manager.ack().await.1.answer(), Answer::Accepted);
    uid
}

async fn told(manager: &mut Manager) -> CommandProgress {
    match manager.hear().await.body {
        Some(Body::CommandProgress(progress)) => progress,
        other => panic!("no progress but {other:?}"),
    }
}

/// What is said of those that wait, until all of them were told what the test waits for.
async fn places(manager: &mut Manager, wanted: &[(Uid, u64, u64)]) {
    let mut left: Vec<_> = wanted.to_vec();
    while !left.is_empty() {
        let said = told(manager).await;
        assert_eq!((said.phase(), said.text.as_str()), (CommandPhase::Waiting, "parallel_limit"));
        let uid = Uid::from_wire(&said.uid).unwrap();
        left.retain(|wanted| *wanted != (uid, said.current, said.total));
    }
}

fn cancel(uid: Uid) -> Body {
    Body::CommandCancel(CommandCancel {
        uid: uid.to_wire(),
        by: "admin".into(),
        grace_ms: GRACE_UNSET,
        expires_ms: NOW + 60_000,
        generation: GENERATION,
        ..CommandCancel::default()
    })
}

/// Protocol R-CMD-12.
#[tokio::test]
async fn as_many_run_as_may_and_the_others_wait_for_the_place_of_one_that_ended() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start_with(folder.path(), &exe, Setup { max_running: 2, ..Setup::default() }).await;
    let mut manager = bed.ready().await;
    let mut uids = Vec::new();
    for id in 1..=2 {
        uids.push(accepted(&mut manager, run(Uid::random(), id)).await);
    }
    let first = Actor::starts(&bed.home.state, uids[0]).await;
    let _second = Actor::starts(&bed.home.state, uids[1]).await;
    for _ in 0..2 {
        assert_eq!(told(&mut manager).await.phase(), CommandPhase::Running, "who is within the limit does not wait");
    }
    for id in 3..=4 {
        uids.push(accepted(&mut manager, run(Uid::random(), id)).await);
    }
    places(&mut manager, &[(uids[2], 1, 2), (uids[3], 2, 2)]).await;
    assert!(!lives(&bed.home.state, uids[2]));

    // What needs no process never waits.
    accepted(&mut manager, ping(Uid::random(), 9)).await;
    manager.result().await;

    first.ends();
    manager.result().await;
    let _third = Actor::starts(&bed.home.state, uids[2]).await;
    let mut next = Vec::new();
    while next.len() < 2 {
        let said = told(&mut manager).await;
        next.push((Uid::from_wire(&said.uid).unwrap(), said.phase(), said.current, said.total));
    }
    next.sort_unstable_by_key(|(_, phase, ..)| i32::from(*phase));
    assert_eq!(next, [(uids[3], CommandPhase::Waiting, 1, 1), (uids[2], CommandPhase::Running, 0, 0)]);
    assert!(!lives(&bed.home.state, uids[3]));
    let_go(&bed.home.state);
}

#[tokio::test]
async fn a_cancel_of_one_that_waits_ends_it_without_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start_with(folder.path(), &exe, one_place()).await;
    let mut manager = bed.ready().await;
    let runs = accepted(&mut manager, run(Uid::random(), 1)).await;
    let waits = accepted(&mut manager, run(Uid::random(), 2)).await;
    places(&mut manager, &[(waits, 1, 1)]).await;
    manager.say(cancel(waits)).await;
    assert!(matches!(manager.hear().await.body, Some(Body::Ack(_))));
    let result = manager.result().await;
    assert_eq!((Outcome::from_wire(result.outcome), result.started_ms), (Some(Outcome::Cancelled), 0));
    assert!(!bed.home.state.command(waits).join("ran").exists());
    assert!(bed.home.state.command(runs).join("ran").exists());
    let_go(&bed.home.state);
}

/// Protocol R-CMD-5.
#[tokio::test]
async fn one_whose_validity_ends_in_the_queue_never_starts() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start_with(folder.path(), &exe, one_place()).await;
    let mut manager = bed.ready().await;
    accepted(&mut manager, run(Uid::random(), 1)).await;
    let waits = accepted(&mut manager, Command { expires_ms: NOW + 1_500, ..run(Uid::random(), 2) }).await;
    places(&mut manager, &[(waits, 1, 1)]).await;
    let result = manager.result().await;
    assert_eq!((Outcome::from_wire(result.outcome), result.error_code.as_str()), (Some(Outcome::Expired), "expired"));
    assert!(!bed.home.state.command(waits).join("ran").exists());
    let_go(&bed.home.state);
}

#[tokio::test]
async fn after_a_restart_the_first_accepted_is_the_first_started_and_the_inventory_says_who_waits() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let state = StateDir::open(folder.path()).unwrap();
    // Later ids were accepted earlier; equal times go by id.
    let uids: Vec<_> = [(5, 30), (9, 10), (8, 20), (7, 20)]
        .into_iter()
        .map(|(id, at)| put_at(&state, &run(Uid::random(), id), at))
        .collect();
    drop(state);
    let bed = Bed::start_with(folder.path(), &exe, one_place()).await;
    let (manager, _) = bed.connect(1, 1 << 20).await;
    let order = [uids[1], uids[3], uids[2], uids[0]];
    let mut running = Actor::starts(&bed.home.state, order[0]).await;
    for (index, uid) in order.iter().enumerate() {
        let started: Vec<_> = order.iter().map(|uid| bed.home.state.command(*uid).join("ran").exists()).collect();
        assert_eq!(started, [true, index > 0, index > 1, index > 2]);
        if let Some(next) = order.get(index + 1) {
            running.ends();
            running = Actor::starts(&bed.home.state, *next).await;
        } else {
            assert_eq!(*uid, order[3]);
            running.ends();
            break;
        }
    }
    drop(manager);
    let ended =
        |inventory: &common::wire::Inventory| inventory.items.iter().all(|item| item.phase() == CommandPhase::Ended);
    let (_, inventory) = bed.connect_until(1, ended).await;
    assert_eq!(inventory.items.len(), 4);
}

#[tokio::test]
async fn a_new_session_lists_who_waits_and_is_told_where() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start_with(folder.path(), &exe, one_place()).await;
    let mut manager = bed.ready().await;
    accepted(&mut manager, run(Uid::random(), 1)).await;
    let waits = accepted(&mut manager, run(Uid::random(), 2)).await;
    places(&mut manager, &[(waits, 1, 1)]).await;
    drop(manager);
    let (mut manager, inventory) = bed.connect(1, 1 << 20).await;
    let mut phases: Vec<_> = inventory.items.iter().map(|item| (item.id, item.phase())).collect();
    phases.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(phases[1], (2, CommandPhase::Waiting));
    manager.want(waits, Action::Continue).await;
    places(&mut manager, &[(waits, 1, 1)]).await;
    let_go(&bed.home.state);
}

/// The body of this test lowers a limit of its whole process, so it has one for itself.
#[test]
fn a_host_that_cannot_make_a_process_is_waited_for() {
    const ALONE: &str = "PAPRIKA_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(without_descriptors());
    }
    let name = "dispatch::tests::waiting::a_host_that_cannot_make_a_process_is_waited_for";
    let exe = std::env::current_exe().unwrap();
    let output = std::process::Command::new(exe).args([name, "--exact"]).env(ALONE, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

async fn without_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start_with(folder.path(), &exe, one_place()).await;
    let mut manager = bed.ready().await;
    let first = accepted(&mut manager, run(Uid::random(), 1)).await;
    let running = Actor::starts(&bed.home.state, first).await;
    assert_eq!(told(&mut manager).await.phase(), CommandPhase::Running);
    let waits = accepted(&mut manager, run(Uid::random(), 2)).await;
    places(&mut manager, &[(waits, 1, 1)]).await;

    // One is left, and two come free with the first command: a look at a directory needs two at a time, a process four.
    let before = getrlimit(Resource::Nofile);
    let highest = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|name| name.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .max()
        .unwrap();
    let mut holes: Vec<_> = Vec::new();
    while holes.last().is_none_or(|file: &std::fs::File| file.as_raw_fd() <= highest) {
        holes.push(std::fs::File::open("/dev/null").unwrap());
    }
    holes.pop();
    let current = Some(u64::try_from(highest).unwrap() + 2);
    setrlimit(Resource::Nofile, Rlimit { current, maximum: before.maximum }).unwrap();
    running.ends();
    loop {
        match manager.hear().await.body {
            Some(Body::CommandProgress(said)) if said.text == "no_resources" => {
                assert_eq!((said.phase(), said.current, said.total), (CommandPhase::Waiting, 1, 1));
                break;
            }
            Some(Body::CommandProgress(_) | Body::CommandResult(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(!bed.home.state.command(waits).join("ran").exists());
    setrlimit(Resource::Nofile, before).unwrap();
    drop(holes);
    until(|| bed.home.state.command(waits).join("ran").exists()).await;
    assert!(!bed.home.state.command(waits).join("spawn.2").exists(), "that was no try of its own");
    let_go(&bed.home.state);
}
