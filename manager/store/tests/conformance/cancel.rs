//! Stopping commands in every phase.

use std::fmt::Write as _;
use std::time::Duration;

use common::model::{Outcome, Phase};
use store::types::{Cancel, CancelAnswer, Command, DueKind, HeldPhase, Millis, everybody};

use crate::world::{HOUR, Home, NOW, admin, connect, ended, name, only, report, submit, taker, wish};

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
    let due = home.store.due(taker("a", generation, 10), &everybody(), NOW).await.unwrap();
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

/// A second wish in a house where the first was told to the agent; answers what the agent is told then.
async fn second(home: &Home, command: &Command, wish: Cancel, now: Millis) -> Option<Duration> {
    let answer = home.store.cancel(command.id, wish, &admin(), now).await.unwrap();
    assert!(matches!(answer, CancelAnswer::Pending { again: true, .. }), "{answer:?}");
    let due = home.store.due(taker(command.agent.as_str(), command.generation, 10), &everybody(), now).await.unwrap();
    let told = due.into_iter().find(|due| due.id == command.id)?;
    let DueKind::Cancel(told, ..) = told.what else { panic!("{told:?}") };
    assert_eq!(told.reason.as_deref(), Some("because"), "the first one says why");
    told.grace
}

/// A running command with a grace of its own that was wished away with another, and whose agent was told.
async fn wished(home: &Home, agent: &str, own: Option<u64>, first: Option<u64>) -> Command {
    home.connected(agent).await;
    let mut asked = submit(&[agent]);
    asked.request.options.grace = own.map(Duration::from_secs);
    let id = only(&home.store.submit(asked).await.unwrap());
    home.due(agent, NOW).await;
    let command = home.command(id).await;
    home.store.progress(&command.uid, &name(agent), report(HeldPhase::Running), NOW).await.unwrap();
    home.store.cancel(id, wish(first), &admin(), NOW).await.unwrap();
    assert_eq!(home.due(agent, NOW).await.1, [id]);
    home.command(id).await
}

pub async fn a_plain_second_wish_skips_the_rest_of_the_grace(home: &Home) {
    for (agent, own, first) in [("a", None, None), ("b", Some(3_600), None), ("c", None, Some(3_600))] {
        let command = wished(home, agent, own, first).await;
        assert_eq!(second(home, &command, wish(None), NOW + 1).await, Some(Duration::ZERO), "{agent}");
        assert_eq!(home.command(command.id).await.cancel.unwrap().grace, Some(Duration::ZERO));
        // There is nothing more to skip.
        assert_eq!(second(home, &command, wish(None), NOW + 2).await, None, "{agent}");
        assert_eq!(second(home, &command, wish(Some(0)), NOW + 3).await, None, "{agent}");
    }
    let at_once = wished(home, "d", Some(5), Some(0)).await;
    assert_eq!(second(home, &at_once, wish(None), NOW + 1).await, None);
}

pub async fn a_second_wish_that_names_a_grace_only_makes_it_more_urgent(home: &Home) {
    // By the grace the first named, else the command's own, else the usual one: an equal one is a repeat.
    let cases = [("a", None, None, 10), ("b", Some(3_600), None, 3_600), ("c", Some(1), Some(60), 60)];
    for (agent, own, first, whole) in cases {
        let command = wished(home, agent, own, first).await;
        assert_eq!(second(home, &command, wish(Some(whole)), NOW + 1).await, None, "{agent}");
        assert_eq!(second(home, &command, wish(Some(whole - 1)), NOW + 1).await, Some(Duration::from_secs(whole - 1)));
    }
    // Once it stops, by what is left.
    let command = wished(home, "d", Some(60), None).await;
    home.store.progress(&command.uid, &name("d"), report(HeldPhase::Stopping), NOW + 5_000).await.unwrap();
    let said = home.command(command.id).await.cancel.unwrap().begun.unwrap();
    let late = said + 50_000;
    assert_eq!(second(home, &command, wish(Some(10)), late).await, None);
    assert_eq!(second(home, &command, wish(Some(9)), late).await, Some(Duration::from_secs(9)));
}

pub async fn the_same_call_twice_is_no_second_wish(home: &Home) {
    let keyed = |key: &str| Cancel { keys: vec![key.to_owned()], ..wish(None) };
    let command = home.in_phase("a", Phase::Running).await;
    home.store.cancel(command.id, keyed("one"), &admin(), NOW).await.unwrap();
    home.due("a", NOW).await;
    assert_eq!(second(home, &command, keyed("one"), NOW + 1).await, None);
    assert_eq!(second(home, &command, keyed("two"), NOW + 2).await, Some(Duration::ZERO));
    assert_eq!(second(home, &command, keyed("one"), NOW + 3).await, None);
    assert_eq!(home.command(command.id).await.cancel.unwrap().keys, ["one", "two"]);
}

pub async fn a_cancel_and_a_send_at_once_never_both_win(home: &Home) {
    let (generation, _) = home.connected("a").await;
    for _ in 0..40 {
        let id = home.queued("a").await;
        let (one, two) = (home.store.clone(), home.store.clone());
        let cancel = tokio::spawn(async move { one.cancel(id, wish(None), &admin(), NOW).await.unwrap() });
        let due = tokio::spawn(async move { two.due(taker("a", generation, 10), &everybody(), NOW).await.unwrap() });
        let sent = due.await.unwrap().iter().any(|due| due.id == id && matches!(due.what, DueKind::Send(_)));
        match cancel.await.unwrap() {
            CancelAnswer::Done => assert!(!sent),
            CancelAnswer::Pending { .. } => assert!(sent),
            CancelAnswer::AlreadyFinal(phase) => panic!("{phase}"),
        }
    }
}
