//! Commands and cancels on their way in.

use common::id::Uid;
use common::limits::GRACE_UNSET;
use common::model::Outcome;
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::{Command, CommandCancel, CommandPhase, ResultAck, nak};

use super::bed::{Bed, GENERATION, Manager, NOW, ping, run};

fn cancel(uid: Uid, id: u64) -> Body {
    Body::CommandCancel(CommandCancel {
        uid: uid.to_wire(),
        id,
        by: "admin".into(),
        reason: "wrong host".into(),
        grace_ms: GRACE_UNSET,
        expires_ms: NOW + 60_000,
        generation: GENERATION,
    })
}

fn outcome(result: &common::wire::CommandResult) -> Option<Outcome> {
    Outcome::from_wire(result.outcome)
}

async fn refusal(manager: &mut Manager, command: Command) -> String {
    manager.say(Body::Command(command)).await;
    let (_, ack) = manager.ack().await;
    assert_eq!(ack.answer(), Answer::Refused);
    ack.code
}

/// Protocol R-CMD-3.
#[tokio::test]
async fn a_command_is_accepted_ended_acknowledged_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    let seq = manager.say(Body::Command(ping(uid, 7))).await;
    let (reply_to, ack) = manager.ack().await;
    assert_eq!((reply_to, ack.answer()), (seq, Answer::Accepted));
    let result = manager.result().await;
    assert_eq!((outcome(&result), result.id), (Some(Outcome::Succeeded), 7));
    assert!(String::from_utf8_lossy(&result.value).contains(r#""pong":true"#));

    // The same again, before and after the manager has it.
    manager.say(Body::Command(ping(uid, 7))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!((ack.answer(), ack.phase()), (Answer::Duplicate, CommandPhase::Ended));
    assert_eq!(manager.result().await.value, result.value);
    manager.say(Body::ResultAck(ResultAck { uid: uid.to_wire(), store_position: 33 })).await;
    manager.say(Body::Ping(Default::default())).await;
    assert!(matches!(manager.hear().await.body, Some(Body::Pong(_))), "what was said before is heard");
    bed.stop().await;

    let bed = Bed::start(folder.path(), "/bin/true").await;
    assert_eq!(bed.memory.lock().unwrap().store_position, 33, "what was heard is remembered");
}

#[tokio::test]
async fn a_delivered_command_becomes_a_tombstone_that_still_knows_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(ping(uid, 7))).await;
    manager.ack().await;
    let result = manager.result().await;
    manager.say(Body::ResultAck(ResultAck { uid: uid.to_wire(), store_position: 0 })).await;
    // Pings are answered while the directory goes; each round trip lets the agent work.
    while bed.home.state.command(uid).exists() {
        manager.say(Body::Ping(Default::default())).await;
        assert!(matches!(manager.hear().await.body, Some(Body::Pong(_))));
    }
    manager.say(Body::Command(ping(uid, 7))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!((ack.answer(), ack.phase()), (Answer::Duplicate, CommandPhase::Ended));
    assert_eq!(manager.result().await, result);

    let other = Uid::random();
    manager.say(Body::Command(ping(other, 7))).await;
    assert!(matches!(manager.hear().await.body, Some(Body::Nak(nak)) if nak.code() == nak::Code::Conflict));
}

/// Protocol R-CMD-4.
#[tokio::test]
async fn an_id_of_another_command_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    manager.say(Body::Command(ping(Uid::random(), 7))).await;
    manager.ack().await;
    manager.result().await;
    let seq = manager.say(Body::Command(ping(Uid::random(), 7))).await;
    let frame = manager.hear().await;
    assert_eq!(frame.reply_to, seq);
    assert!(matches!(frame.body, Some(Body::Nak(nak)) if nak.code() == nak::Code::Conflict));
}

/// Protocol R-CMD-8.
#[tokio::test]
async fn a_cancel_of_an_unknown_command_keeps_it_from_ever_running() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    let seq = manager.say(cancel(uid, 7)).await;
    let frame = manager.hear().await;
    assert!(matches!(frame.body, Some(Body::Ack(_))) && frame.reply_to == seq, "{frame:?}");
    let result = manager.result().await;
    assert_eq!((outcome(&result), result.cancelled_by.as_str()), (Some(Outcome::Cancelled), "admin"));
    bed.stop().await;

    let bed = Bed::start(folder.path(), "/bin/true").await;
    let (mut manager, _) = bed.connect(1, 1 << 20).await;
    manager.say(Body::Command(run(uid, 7))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!((ack.answer(), ack.phase()), (Answer::Duplicate, CommandPhase::Ended));
    assert_eq!(outcome(&manager.result().await), Some(Outcome::Cancelled));
    assert!(!bed.home.state.command(uid).exists());
}

#[tokio::test]
async fn a_cancel_of_a_finished_command_brings_its_end_again() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(ping(uid, 7))).await;
    manager.ack().await;
    manager.result().await;
    manager.say(cancel(uid, 7)).await;
    assert!(matches!(manager.hear().await.body, Some(Body::Ack(_))));
    assert_eq!(outcome(&manager.result().await), Some(Outcome::Succeeded), "an end stands");
}

#[tokio::test]
async fn a_command_and_its_cancel_in_one_breath_end_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    // A shim that starts and does nothing: what it has not started may be cancelled.
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(run(uid, 7))).await;
    manager.say(cancel(uid, 7)).await;
    let (mut accepted, mut acked, mut ends) = (0, 0, Vec::new());
    while ends.is_empty() || acked == 0 {
        match manager.hear().await.body {
            Some(Body::CommandAck(ack)) if ack.answer() == Answer::Accepted => accepted += 1,
            Some(Body::Ack(_)) => acked += 1,
            Some(Body::CommandResult(result)) => ends.push(outcome(&result)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((accepted, acked, ends), (1, 1, vec![Some(Outcome::Cancelled)]));
}

/// Protocol R-CMD-5.
#[tokio::test]
async fn validity_is_judged_in_manager_time_and_its_end_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(Command { expires_ms: NOW, ..run(uid, 7) })).await;
    assert_eq!(manager.ack().await.1.answer(), Answer::Expired);
    assert_eq!(outcome(&manager.result().await), Some(Outcome::Expired));
    manager.say(Body::Command(Command { expires_ms: NOW, ..run(uid, 7) })).await;
    let (_, ack) = manager.ack().await;
    assert_eq!((ack.answer(), ack.phase()), (Answer::Duplicate, CommandPhase::Ended));
    assert_eq!(outcome(&manager.result().await), Some(Outcome::Expired));
}

/// Protocol R-CMD-6, R-CMD-7.
#[tokio::test]
async fn what_is_not_for_this_agent_or_makes_no_sense_is_refused_with_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    let command = || run(uid, 7);
    assert_eq!(refusal(&mut manager, Command { generation: 5, ..command() }).await, "generation");
    assert_eq!(refusal(&mut manager, Command { operation: "x".into(), ..command() }).await, "unknown_operation");
    assert_eq!(refusal(&mut manager, Command { args: "{}".into(), ..command() }).await, "invalid_args");
    assert!(!bed.home.state.command(uid).exists(), "nothing of it was written");

    manager.say(Body::Command(Command { uid: vec![1; 15].into(), ..command() })).await;
    assert!(matches!(manager.hear().await.body, Some(Body::Nak(nak)) if nak.code() == nak::Code::Invalid));
    let other = match cancel(uid, 7) {
        Body::CommandCancel(other) => other,
        other => panic!("{other:?}"),
    };
    manager.say(Body::CommandCancel(CommandCancel { generation: 5, ..other })).await;
    assert!(matches!(manager.hear().await.body, Some(Body::Nak(nak)) if nak.code() == nak::Code::NotMine));
}

#[tokio::test]
async fn many_at_once_are_all_accepted_once() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    for id in 1..=60 {
        manager.say(Body::Command(ping(Uid::random(), id))).await;
    }
    let (mut accepted, mut ended) = (0, 0);
    while accepted + ended < 120 {
        match manager.hear().await.body {
            Some(Body::CommandAck(ack)) if ack.answer() == Answer::Accepted => accepted += 1,
            Some(Body::CommandResult(_)) => ended += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((accepted, ended), (60, 60));
}

/// Protocol R-CMD-10.
#[tokio::test]
async fn many_large_commands_are_taken_or_asked_back_and_all_of_them_arrive_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let text = "x".repeat(500 * 1024);
    let large = |uid, id| Command {
        stdin: vec![b'x'; 256 * 1024].into(),
        args: format!(r#"{{"shell":"true {text}"}}"#).into(),
        ..run(uid, id)
    };
    let commands: Vec<_> = (1..=20).map(|id| large(Uid::random(), id)).collect();
    for command in &commands {
        manager.say(Body::Command(command.clone())).await;
    }
    let (mut accepted, mut ended) = (0, 0);
    while accepted < commands.len() || ended < commands.len() {
        match manager.hear().await.body {
            Some(Body::CommandAck(ack)) if ack.answer() == Answer::Accepted => accepted += 1,
            Some(Body::CommandAck(ack)) if ack.answer() == Answer::Deferred => {
                assert!(ack.deferred_until_ms > NOW, "{ack:?}");
                let again = commands.iter().find(|command| command.uid == ack.uid).unwrap();
                manager.say(Body::Command(again.clone())).await;
            }
            Some(Body::CommandResult(_)) => ended += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((accepted, ended), (20, 20));
}
