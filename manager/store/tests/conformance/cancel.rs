//! Stopping commands in every phase.

use std::fmt::Write as _;
use std::time::Duration;

use common::model::{Outcome, Phase};
use store::types::{CancelAnswer, DueKind};

use crate::world::{HOUR, Home, JOURNAL, NOW, RESEND, admin, connect, ended, name, wish};

pub async fn a_queued_command_never_runs(home: &Home) {
    home.connected("a").await;
    let id = home.queued("a").await;
    let answer = home.store.cancel(id, wish(None), &admin(), NOW + 4).await.unwrap();
    assert_eq!(answer, CancelAnswer::Done);
    let command = home.command(id).await;
    assert_eq!((command.phase, command.finished_at), (Phase::Cancelled, Some(NOW + 4)));
    let end = command.end.unwrap();
    assert_eq!((end.cancelled_by.as_deref(), end.cancel_reason.as_deref()), (Some("admin"), Some("because")));
    assert!(command.streams.iter().all(|stream| stream.end));
    assert_eq!(home.due("a", NOW).await, (vec![], vec![]));
    assert!(home.store.cancel(common::id::CommandId(99), wish(None), &admin(), NOW).await.is_err());
}

pub async fn a_sent_command_is_wished_away_and_never_sent_again(home: &Home) {
    let command = home.in_phase("a", Phase::Dispatched).await;
    let answer = home.store.cancel(command.id, wish(Some(3)), &admin(), NOW).await.unwrap();
    assert_eq!(answer, CancelAnswer::Pending { phase: Phase::Dispatched, again: false });
    let generation = command.generation;
    let due = home.store.due(&name("a"), generation, JOURNAL, 10, RESEND, NOW).await.unwrap();
    let DueKind::Cancel(told, expires, bearer) = &due[0].what else { panic!("{due:?}") };
    assert_eq!((told.grace, *expires, *bearer), (Some(Duration::from_secs(3)), NOW + HOUR, generation));
    // Told in this session; told again in the next one, or after a while; never sent.
    assert_eq!(home.due("a", NOW + 1).await, (vec![], vec![]));
    home.store.agent_connected(connect("a", generation), NOW + 2).await.unwrap();
    assert_eq!(home.due("a", NOW + 2).await, (vec![], vec![command.id]));
    assert_eq!(home.due("a", NOW + 20_000).await, (vec![], vec![command.id]));
    home.store.result(&command.uid, &name("a"), ended(Outcome::Cancelled, &[]), NOW).await.unwrap();
    assert_eq!(home.due("a", NOW + HOUR).await, (vec![], vec![]));
}

pub async fn every_phase_answers_a_cancel_as_the_table_says(home: &Home) {
    let mut table = String::new();
    for (index, phase) in Phase::ALL.into_iter().filter(|phase| !phase.is_final()).enumerate() {
        let command = home.in_phase(&format!("agent{index}"), phase).await;
        let answer = home.store.cancel(command.id, wish(None), &admin(), NOW).await.unwrap();
        writeln!(table, "{phase}: {answer:?} -> {}", home.command(command.id).await.phase).unwrap();
    }
    for outcome in Outcome::ALL {
        let command = home.in_phase("ending", Phase::Running).await;
        home.store.result(&command.uid, &name("ending"), ended(outcome, &[]), NOW).await.unwrap();
        let answer = home.store.cancel(command.id, wish(None), &admin(), NOW).await.unwrap();
        assert_eq!(answer, CancelAnswer::AlreadyFinal(outcome.into()));
        assert_eq!(home.command(command.id).await.cancel, None);
    }
    let expected = "\
queued: Done -> cancelled
dispatched: Pending { phase: Dispatched, again: false } -> dispatched
accepted: Pending { phase: Accepted, again: false } -> accepted
waiting: Pending { phase: Waiting, again: false } -> waiting
running: Pending { phase: Running, again: false } -> running
paused: Pending { phase: Paused, again: false } -> paused
stopping: Pending { phase: Stopping, again: false } -> stopping
";
    assert_eq!(table, expected);
}

pub async fn a_second_wish_only_makes_it_more_urgent(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    home.store.cancel(command.id, wish(None), &admin(), NOW).await.unwrap();
    assert_eq!(home.due("a", NOW).await.1, [command.id]);
    let again = CancelAnswer::Pending { phase: Phase::Running, again: true };
    // Not shorter than the default of the agent: nothing to tell.
    assert_eq!(home.store.cancel(command.id, wish(Some(60)), &admin(), NOW).await.unwrap(), again);
    assert_eq!(home.due("a", NOW).await.1, []);
    assert_eq!(home.store.cancel(command.id, wish(Some(0)), &admin(), NOW).await.unwrap(), again);
    assert_eq!(home.due("a", NOW).await.1, [command.id]);
    assert_eq!(home.command(command.id).await.cancel.unwrap().grace, Some(Duration::ZERO));
}

pub async fn a_cancel_and_a_send_at_once_never_both_win(home: &Home) {
    let (generation, _) = home.connected("a").await;
    for _ in 0..40 {
        let id = home.queued("a").await;
        let (one, two) = (home.store.clone(), home.store.clone());
        let cancel = tokio::spawn(async move { one.cancel(id, wish(None), &admin(), NOW).await.unwrap() });
        let due = tokio::spawn(async move { two.due(&name("a"), generation, JOURNAL, 10, RESEND, NOW).await.unwrap() });
        let sent = due.await.unwrap().iter().any(|due| due.id == id && matches!(due.what, DueKind::Send(_)));
        match cancel.await.unwrap() {
            CancelAnswer::Done => assert!(!sent),
            CancelAnswer::Pending { .. } => assert!(sent),
            CancelAnswer::AlreadyFinal(phase) => panic!("{phase}"),
        }
    }
}
