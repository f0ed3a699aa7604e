//! Ends, and when an agent may forget.

use std::time::Duration;

use common::model::{Outcome, Phase, StreamName};
use store::StoreError;
use store::types::{AckAnswer, Reported, ResultKind};

use crate::world::{HOUR, Home, NOW, chunk, ended, name};

pub async fn an_end_is_taken_once_and_repeats_change_nothing(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    let reported = ended(Outcome::Failed, &[(StreamName::Stdout, 5)]);
    let taken = home.store.result(&command.uid, &name("a"), reported.clone(), NOW + 10).await.unwrap();
    assert_eq!((taken.command, taken.phase, taken.kind), (command.id, Phase::Failed, ResultKind::First));
    let position = home.store.position();
    let again = home.store.result(&command.uid, &name("a"), ended(Outcome::Succeeded, &[]), NOW + 20).await.unwrap();
    assert_eq!((again.phase, again.kind), (Phase::Failed, ResultKind::Repeat));
    assert_eq!(home.store.position(), position);
    let command = home.command(command.id).await;
    assert_eq!(command.end, Some(reported.end));
    assert_eq!(command.finished_at, Some(NOW + 2));
    assert_eq!(command.isolation.as_deref(), Some("cgroup"));
    let stdout = &command.streams[0];
    assert_eq!((stdout.length, stdout.final_length, stdout.end), (0, Some(5), false));
    assert_eq!((command.streams[1].final_length, command.streams[1].end), (Some(0), true));
}

pub async fn an_end_before_any_other_news_is_taken(home: &Home) {
    let command = home.in_phase("a", Phase::Dispatched).await;
    home.store.result(&command.uid, &name("a"), ended(Outcome::Succeeded, &[]), NOW).await.unwrap();
    // A row that a restored store never saw leave is evidently sent.
    let queued = home.in_phase("a", Phase::Queued).await;
    let taken = home.store.result(&queued.uid, &name("a"), ended(Outcome::Succeeded, &[]), NOW).await.unwrap();
    assert_eq!(taken.phase, Phase::Succeeded);
    assert!(home.command(queued.id).await.first_sent_at.is_some());
}

/// Protocol R-RES-5.
pub async fn a_late_end_is_evidence_and_the_phase_stays(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    let agent = home.store.agent(&name("a")).await.unwrap().unwrap();
    home.store.agent_disconnected(&name("a"), agent.epoch, NOW).await.unwrap();
    let given_up = home.store.give_up_lost(NOW + 300 * HOUR, Duration::from_secs(1)).await.unwrap();
    assert_eq!(given_up, [command.id]);
    let reported = ended(Outcome::Succeeded, &[(StreamName::Stdout, 3)]);
    let taken = home.store.result(&command.uid, &name("a"), reported.clone(), NOW + 301 * HOUR).await.unwrap();
    assert_eq!((taken.phase, taken.kind), (Phase::Interrupted, ResultKind::Late));
    let taken = home.store.result(&command.uid, &name("a"), reported, NOW + 302 * HOUR).await.unwrap();
    assert_eq!(taken.kind, ResultKind::Repeat);
    let evidence = home.store.evidence(command.id).await.unwrap();
    assert_eq!(evidence.len(), 1);
    assert!(evidence[0].body.contains("succeeded"), "{}", evidence[0].body);
    let row = home.command(command.id).await;
    assert_eq!(row.phase, Phase::Interrupted);
    assert_eq!(row.end.unwrap().error.unwrap().code, "agent_lost");
    // Its bytes are taken all the same before it may forget.
    assert!(!home.store.ready_for_ack(command.id).await.unwrap());
    home.write(command.id, 0, b"abc").await.unwrap();
    assert!(home.store.ready_for_ack(command.id).await.unwrap());
}

pub async fn the_answer_and_the_result_of_an_expired_command_are_one_end(home: &Home) {
    let command = home.in_phase("a", Phase::Dispatched).await;
    home.store.acked(&command.uid, &name("a"), AckAnswer::Expired, NOW).await.unwrap();
    assert_eq!(home.command(command.id).await.phase, Phase::Expired);
    let taken = home.store.result(&command.uid, &name("a"), ended(Outcome::Expired, &[]), NOW).await.unwrap();
    assert_eq!((taken.phase, taken.kind), (Phase::Expired, ResultKind::First));
    assert!(home.store.evidence(command.id).await.unwrap().is_empty());
    assert!(home.store.ready_for_ack(command.id).await.unwrap());
}

pub async fn ready_means_the_end_and_every_byte(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    let id = command.id;
    home.write(id, 0, b"hello").await.unwrap();
    assert!(!home.store.ready_for_ack(id).await.unwrap());
    // Acked by mistake before the end: nothing happens.
    home.store.mark_result_acked(vec![id]).await.unwrap();
    assert!(!home.command(id).await.result_acked);
    let reported = ended(Outcome::Succeeded, &[(StreamName::Stdout, 10), (StreamName::Stderr, 0)]);
    home.store.result(&command.uid, &name("a"), reported, NOW).await.unwrap();
    assert!(!home.store.ready_for_ack(id).await.unwrap());
    assert!(!home.command(id).await.streams[0].end);
    home.write(id, 5, b"world").await.unwrap();
    assert!(home.store.ready_for_ack(id).await.unwrap());
    home.store.sync_output().await.unwrap();
    home.store.sync_output().await.unwrap();
    home.store.mark_result_acked(vec![id]).await.unwrap();
    let row = home.command(id).await;
    assert!(row.result_acked && row.streams.iter().all(|stream| stream.end));
    assert!(home.store.ready_for_ack(common::id::CommandId(99)).await.is_err());
}

pub async fn lower_bounds_let_longer_bytes_stand(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    home.write(command.id, 0, b"longer than the agent still has").await.unwrap();
    let mut reported: Reported = ended(Outcome::Interrupted, &[(StreamName::Stdout, 6)]);
    reported.end.lengths_are_lower_bounds = true;
    home.store.result(&command.uid, &name("a"), reported, NOW).await.unwrap();
    assert!(home.store.ready_for_ack(command.id).await.unwrap());
    let stdout = home.command(command.id).await.streams[0].clone();
    assert_eq!((stdout.length, stdout.final_length, stdout.end), (31, Some(31), true));
}

pub async fn absurd_numbers_are_refused(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    let absurd = ended(Outcome::Succeeded, &[(StreamName::Stdout, u64::MAX)]);
    let refused = home.store.result(&command.uid, &name("a"), absurd, NOW).await;
    assert!(matches!(refused, Err(StoreError::OutOfRange { .. })));
    let twice = ended(Outcome::Succeeded, &[(StreamName::Stdout, 1), (StreamName::Stdout, 2)]);
    assert!(home.store.result(&command.uid, &name("a"), twice, NOW).await.is_err());
    assert_eq!(home.command(command.id).await.phase, Phase::Running);
    let far = chunk(command.id, u64::MAX, b"x");
    assert!(home.store.append_output(vec![far]).unwrap().await.is_err());
    assert!(home.store.command(common::id::CommandId(u64::MAX)).await.is_err());
}
