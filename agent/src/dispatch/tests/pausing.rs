//! Pause and go on.

use common::id::Uid;
use common::limits::GRACE_UNSET;
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{Command, CommandCancel, CommandPause, CommandPhase, CommandProgress, nak};

use super::actor::{Actor, let_go, lives, program};
use super::bed::{Bed, GENERATION, Manager, NOW, Setup, ping, run};
use crate::commands::request::{PauseRequest, pause_wish};
use crate::commands::status::ShimPhase;

fn wish(uid: Uid, wish: u64, paused: bool) -> CommandPause {
    CommandPause { uid: uid.to_wire(), id: 1, paused, by: "admin".into(), wish, generation: GENERATION }
}

async fn accepted(manager: &mut Manager, command: Command) -> Uid {
    let uid = Uid::from_wire(&command.uid).unwrap();
    manager.say(Body::Command(command)).await;
    assert_eq!(manager.ack().await.1.answer(), Answer::Accepted);
    uid
}

/// Says a wish and hears its answer: `None` is an Ack.
async fn answer(manager: &mut Manager, wish: CommandPause) -> Option<nak::Code> {
    let seq = manager.say(Body::CommandPause(wish)).await;
    loop {
        let frame = manager.hear().await;
        match frame.body {
            Some(Body::Ack(_)) if frame.reply_to == seq => return None,
            Some(Body::Nak(nak)) if frame.reply_to == seq => return Some(nak.code()),
            Some(Body::CommandProgress(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn told(manager: &mut Manager) -> CommandProgress {
    match manager.hear().await.body {
        Some(Body::CommandProgress(progress)) => progress,
        other => panic!("no progress but {other:?}"),
    }
}

async fn phase(manager: &mut Manager) -> (CommandPhase, u64, String) {
    let said = told(manager).await;
    assert_eq!(said.isolation, "best_effort");
    (said.phase(), said.at_ms, said.text)
}

/// Protocol R-PAUSE-1, R-PAUSE-2.
#[tokio::test]
async fn a_wish_is_durable_when_it_is_acknowledged_and_the_phase_is_what_the_shim_says() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start(folder.path(), &exe).await;
    let mut manager = bed.ready().await;
    let uid = accepted(&mut manager, run(Uid::random(), 1)).await;
    let dir = bed.home.state.command(uid);
    let actor = Actor::starts(&bed.home.state, uid).await;
    assert_eq!(phase(&mut manager).await, (CommandPhase::Running, 77, String::new()));

    assert_eq!(answer(&mut manager, wish(uid, 2, true)).await, None);
    let placed = PauseRequest { wish: 2, paused: true, by: "admin".into() };
    assert_eq!(pause_wish(&dir), Some(placed.clone()));
    // A repeat and an older wish are acknowledged and change nothing.
    assert_eq!(answer(&mut manager, wish(uid, 2, true)).await, None);
    assert_eq!(answer(&mut manager, wish(uid, 1, false)).await, None);
    assert_eq!(pause_wish(&dir), Some(placed));

    actor.says(ShimPhase::Paused, 80, &[]);
    assert_eq!(phase(&mut manager).await, (CommandPhase::Paused, 80, String::new()));
    assert_eq!(answer(&mut manager, wish(uid, 3, false)).await, None);
    actor.says(ShimPhase::Running, 85, &[]);
    assert_eq!(phase(&mut manager).await, (CommandPhase::Running, 85, String::new()));
    actor.says(ShimPhase::Stopping, 90, &[]);
    assert_eq!(
        phase(&mut manager).await,
        (CommandPhase::Stopping, 90, String::new()),
        "a timeout is told by nobody else"
    );
    actor.says(ShimPhase::Stopping, 95, &[12, 13]);
    assert_eq!(phase(&mut manager).await, (CommandPhase::Stopping, 95, "stuck: pids 12 13".to_owned()));
    actor.ends();
    manager.result().await;
}

/// Protocol R-PAUSE-3.
#[tokio::test]
async fn what_cannot_be_paused_is_refused_with_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start(folder.path(), &exe).await;
    let mut manager = bed.ready().await;
    assert_eq!(answer(&mut manager, wish(Uid::random(), 1, true)).await, Some(nak::Code::Unknown));
    let other = CommandPause { uid: vec![1; 15].into(), ..wish(Uid::random(), 1, true) };
    assert_eq!(answer(&mut manager, other).await, Some(nak::Code::Invalid));

    let over = accepted(&mut manager, ping(Uid::random(), 1)).await;
    manager.result().await;
    assert_eq!(answer(&mut manager, wish(over, 1, true)).await, Some(nak::Code::Unknown));

    let runs = accepted(&mut manager, run(Uid::random(), 2)).await;
    let _actor = Actor::starts(&bed.home.state, runs).await;
    assert_eq!(phase(&mut manager).await.0, CommandPhase::Running);
    let others = CommandPause { generation: GENERATION + 1, ..wish(runs, 1, true) };
    assert_eq!(answer(&mut manager, others).await, Some(nak::Code::NotMine));
    manager
        .say(Body::CommandCancel(CommandCancel {
            uid: runs.to_wire(),
            by: "admin".into(),
            grace_ms: GRACE_UNSET,
            expires_ms: NOW + 60_000,
            generation: GENERATION,
            ..CommandCancel::default()
        }))
        .await;
    assert_eq!(answer(&mut manager, wish(runs, 1, true)).await, Some(nak::Code::Unknown), "it is being ended");
    assert_eq!(pause_wish(&bed.home.state.command(runs)), None);
}

/// Protocol R-PAUSE-4.
#[tokio::test]
async fn a_wish_that_comes_before_the_start_is_there_when_the_shim_starts() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start_with(folder.path(), &exe, Setup { max_running: 2, ..Setup::default() }).await;
    let mut manager = bed.ready().await;
    // In one breath with its command.
    let uid = Uid::random();
    manager.say(Body::Command(run(uid, 1))).await;
    assert_eq!(answer_after_ack(&mut manager, wish(uid, 1, true)).await, None);
    let first = Actor::starts(&bed.home.state, uid).await;
    assert!(bed.home.state.command(uid).join("saw-pause").exists());
    first.says(ShimPhase::Paused, 78, &[]);
    let mut said = Vec::new();
    while said.last() != Some(&(CommandPhase::Paused, 78, String::new())) {
        said.push(phase(&mut manager).await);
    }
    assert_eq!(said.first(), Some(&(CommandPhase::Running, 77, String::new())), "when it started is told first");

    // While it waits for a place; the paused one keeps its own.
    let second = accepted(&mut manager, run(Uid::random(), 2)).await;
    let running = Actor::starts(&bed.home.state, second).await;
    assert_eq!(phase(&mut manager).await.0, CommandPhase::Running);
    let waits = accepted(&mut manager, run(Uid::random(), 3)).await;
    assert_eq!(told(&mut manager).await.phase(), CommandPhase::Waiting);
    assert_eq!(answer(&mut manager, wish(waits, 1, true)).await, None);
    assert!(!lives(&bed.home.state, waits));
    running.ends();
    manager.result().await;
    let third = Actor::starts(&bed.home.state, waits).await;
    assert!(bed.home.state.command(waits).join("saw-pause").exists());
    drop((first, third));
    let_go(&bed.home.state);
}

/// The answer to the command may stand before that to the wish.
async fn answer_after_ack(manager: &mut Manager, wish: CommandPause) -> Option<nak::Code> {
    let seq = manager.say(Body::CommandPause(wish)).await;
    let mut accepted = 0;
    loop {
        let frame = manager.hear().await;
        match frame.body {
            Some(Body::CommandAck(ack)) if ack.answer() == Answer::Accepted => accepted += 1,
            Some(Body::Ack(_)) if frame.reply_to == seq => {
                assert_eq!(accepted, 1);
                return None;
            }
            Some(Body::Nak(nak)) => return Some(nak.code()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_new_session_and_a_new_agent_hear_that_it_is_paused() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start(folder.path(), &exe).await;
    let mut manager = bed.ready().await;
    let uid = accepted(&mut manager, run(Uid::random(), 1)).await;
    let actor = Actor::starts(&bed.home.state, uid).await;
    assert_eq!(phase(&mut manager).await.0, CommandPhase::Running);
    actor.says(ShimPhase::Paused, 80, &[]);
    assert_eq!(phase(&mut manager).await.0, CommandPhase::Paused);
    drop(manager);

    let (mut manager, inventory) = bed.connect(1, 1 << 20).await;
    assert_eq!((inventory.items[0].phase(), inventory.items[0].started_ms), (CommandPhase::Paused, 77));
    manager.want(uid, Action::Continue).await;
    assert_eq!(phase(&mut manager).await, (CommandPhase::Paused, 80, String::new()));
    drop(manager);
    bed.stop().await;

    let bed = Bed::start(folder.path(), &exe).await;
    let (mut manager, inventory) = bed.connect(1, 1 << 20).await;
    assert_eq!(inventory.items[0].phase(), CommandPhase::Paused);
    manager.want(uid, Action::Continue).await;
    assert_eq!(phase(&mut manager).await, (CommandPhase::Paused, 80, String::new()));
    actor.says(ShimPhase::Running, 99, &[]);
    assert_eq!(phase(&mut manager).await, (CommandPhase::Running, 99, String::new()));
}

#[tokio::test]
async fn many_wishes_in_one_breath_are_all_answered_and_the_newest_stands() {
    let folder = tempfile::tempdir().unwrap();
    let exe = program(folder.path());
    let bed = Bed::start(folder.path(), &exe).await;
    let mut manager = bed.ready().await;
    let uid = accepted(&mut manager, run(Uid::random(), 1)).await;
    let _actor = Actor::starts(&bed.home.state, uid).await;
    let mut asked = Vec::new();
    for number in 1..=12 {
        asked.push(manager.say(Body::CommandPause(wish(uid, number, number % 2 == 0))).await);
    }
    let mut answered = Vec::new();
    while answered.len() < asked.len() {
        let frame = manager.hear().await;
        match frame.body {
            Some(Body::Ack(_)) => answered.push(frame.reply_to),
            Some(Body::CommandProgress(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, asked);
    let placed = PauseRequest { wish: 12, paused: true, by: "admin".into() };
    assert_eq!(pause_wish(&bed.home.state.command(uid)), Some(placed));
}
