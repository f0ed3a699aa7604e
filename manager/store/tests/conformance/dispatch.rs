//! Commands on their way to agents.

use std::time::Duration;

use common::model::{Outcome, Phase};
use store::StoreError;
use store::types::{AckAnswer, HeldPhase, Progress, ProgressReport, Submit, Taker, everybody};

use crate::world::{
    HOUR, Home, JOURNAL, NOW, RESEND, admin, connect, ended, keyed, kinds, name, only, report, submit, taker, wish,
};

const LOST_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Protocol R-CMD-1.
pub async fn due_records_the_first_send_before_it_answers(home: &Home) {
    let (generation, _) = home.connected("a").await;
    let first = home.queued("a").await;
    let second = home.queued("a").await;
    let due = home.store.due(taker("a", generation, 1), &everybody(), NOW + 1).await.unwrap();
    assert_eq!(kinds(&due), (vec![first], vec![]));
    let command = home.command(first).await;
    assert_eq!(command.phase, Phase::Dispatched);
    assert_eq!((command.first_sent_at, command.first_sent_journal), (Some(NOW + 1), Some(JOURNAL)));
    assert_eq!(home.due("a", NOW + 1).await.0, [second]);
    assert_eq!(home.due("a", NOW + 1).await.0, []);
    let fenced = home.store.due(taker("a", common::id::Generation(99), 1), &everybody(), NOW).await;
    assert!(matches!(fenced, Err(StoreError::Fenced(_))));
}

pub async fn a_submit_for_a_session_is_accepted_and_sent_in_one_commit(home: &Home) {
    let (generation, _) = home.connected("a").await;
    let first = taker("a", generation, 1);
    let (deliver, mut delivered) = tokio::sync::mpsc::unbounded_channel();
    let start = async |submit: Submit, taker: &Taker| {
        let deliver = deliver.clone();
        home.store
            .submit_and_take(submit, taker.clone(), &everybody(), move |due| deliver.send(due).unwrap())
            .await
            .unwrap()
    };
    let before = home.store.position().position.0;
    let started = start(keyed(&["a"], "k", 1), &first).await;
    assert_eq!(home.store.position().position.0, before + 1);
    let id = only(&started.submitted);
    assert_eq!(kinds(&delivered.try_recv().unwrap()), (vec![id], vec![]));
    let row = home.command(id).await;
    assert_eq!((row.phase, row.first_sent_journal), (Phase::Dispatched, Some(JOURNAL)));
    assert_eq!(started.command, Some(row));
    assert_eq!(home.due("a", NOW).await.0, []);

    // A repeat makes and sends nothing.
    let again = start(keyed(&["a"], "k", 1), &first).await;
    assert!(again.submitted.replayed && again.command.is_none() && delivered.try_recv().is_err());
    // A session of an earlier bearer gets nothing; the command waits.
    let fenced = Taker { generation: common::id::Generation(99), ..first.clone() };
    let waiting = start(submit(&["a"]), &fenced).await;
    assert!(waiting.command.is_none() && delivered.try_recv().unwrap().is_empty());
    // What waits longer goes first.
    let later = start(submit(&["a"]), &first).await;
    assert!(later.command.is_none());
    assert_eq!(kinds(&delivered.try_recv().unwrap()).0, [only(&waiting.submitted)]);
    assert_eq!(home.due("a", NOW).await.0, [only(&later.submitted)]);
}

pub async fn what_is_not_answered_is_sent_again_after_a_while(home: &Home) {
    let command = home.in_phase("a", Phase::Dispatched).await;
    assert_eq!(home.due("a", NOW + 9_999).await.0, []);
    assert_eq!(home.due("a", NOW + 10_000).await.0, [command.id]);
    assert_eq!(home.due("a", NOW + 19_999).await.0, []);
    let again = home.command(command.id).await;
    assert_eq!((again.first_sent_at, again.phase), (Some(NOW), Phase::Dispatched));
    home.store.acked(&command.uid, &name("a"), AckAnswer::Accepted, NOW).await.unwrap();
    assert_eq!(home.due("a", NOW + HOUR).await.0, []);
}

pub async fn nothing_new_goes_to_a_drained_agent(home: &Home) {
    home.connected("a").await;
    let id = home.queued("a").await;
    assert!(home.store.set_drained(&name("a"), true, &admin(), NOW).await.unwrap().drained);
    assert_eq!(home.due("a", NOW).await.0, []);
    assert!(!home.store.set_drained(&name("a"), false, &admin(), NOW).await.unwrap().drained);
    assert_eq!(home.due("a", NOW).await.0, [id]);
}

pub async fn nothing_expired_is_sent(home: &Home) {
    home.connected("a").await;
    let id = home.queued("a").await;
    assert_eq!(home.due("a", NOW + HOUR).await.0, []);
    assert_eq!(home.command(id).await.phase, Phase::Queued);
    assert_eq!(home.due("a", NOW + HOUR - 1).await.0, [id]);
}

pub async fn answers_move_the_command_once(home: &Home) {
    let command = home.in_phase("a", Phase::Dispatched).await;
    let agent = name("a");
    let answered = home.store.acked(&command.uid, &agent, AckAnswer::Accepted, NOW + 5).await.unwrap();
    assert_eq!((answered.command, answered.phase, answered.wished), (command.id, Phase::Accepted, false));
    home.store.acked(&command.uid, &agent, AckAnswer::Accepted, NOW + 9).await.unwrap();
    assert_eq!(home.command(command.id).await.accepted_at, Some(NOW + 5));
    let duplicate = AckAnswer::Duplicate(HeldPhase::Running);
    assert_eq!(home.store.acked(&command.uid, &agent, duplicate, NOW + 9).await.unwrap().phase, Phase::Running);
    // Old answers to repeated sends arrive late and change nothing.
    for late in [
        AckAnswer::Expired,
        AckAnswer::Refused { code: "x".to_owned(), text: "x".to_owned() },
        AckAnswer::Deferred { until: NOW + HOUR },
        AckAnswer::Duplicate(HeldPhase::Accepted),
        AckAnswer::Duplicate(HeldPhase::Ended),
    ] {
        assert_eq!(home.store.acked(&command.uid, &agent, late, NOW + 9).await.unwrap().phase, Phase::Running);
    }
}

pub async fn a_deferred_command_waits_for_its_time(home: &Home) {
    let command = home.in_phase("a", Phase::Dispatched).await;
    let answer = AckAnswer::Deferred { until: NOW + 60_000 };
    home.store.acked(&command.uid, &name("a"), answer, NOW).await.unwrap();
    let deferred = home.command(command.id).await;
    assert_eq!((deferred.phase, deferred.waiting.as_deref()), (Phase::Dispatched, Some("deferred")));
    assert_eq!(home.due("a", NOW + 59_999).await.0, []);
    assert_eq!(home.due("a", NOW + 60_000).await.0, [command.id]);
}

pub async fn a_refused_command_is_over(home: &Home) {
    let command = home.in_phase("a", Phase::Dispatched).await;
    let answer = AckAnswer::Refused { code: "unknown_operation".to_owned(), text: "no such verb".to_owned() };
    home.store.acked(&command.uid, &name("a"), answer, NOW).await.unwrap();
    let refused = home.command(command.id).await;
    assert_eq!(refused.phase, Phase::Refused);
    assert_eq!(refused.end.unwrap().error.unwrap().code, "unknown_operation");
    assert!(refused.streams.iter().all(|stream| stream.end && stream.final_length == Some(0)));
    assert_eq!(home.due("a", NOW + HOUR).await, (vec![], vec![]));
}

pub async fn progress_moves_forward_only(home: &Home) {
    let command = home.in_phase("a", Phase::Accepted).await;
    let agent = name("a");
    let waiting = ProgressReport { waiting: Some("another run".to_owned()), ..report(HeldPhase::Waiting) };
    home.store.progress(&command.uid, &agent, waiting, NOW).await.unwrap();
    assert_eq!(home.command(command.id).await.waiting.as_deref(), Some("another run"));
    let progress = Progress { current: 1, total: 3, text: "one".to_owned() };
    let running = ProgressReport {
        progress: Some(progress.clone()),
        isolation: Some("best_effort".to_owned()),
        at: Some(NOW + 7),
        ..report(HeldPhase::Running)
    };
    home.store.progress(&command.uid, &agent, running, NOW + 9).await.unwrap();
    let (_, phase) = home.store.progress(&command.uid, &agent, report(HeldPhase::Waiting), NOW + 9).await.unwrap();
    assert_eq!(phase, Phase::Running);
    let command = home.command(command.id).await;
    assert_eq!((command.progress, command.waiting, command.started_at), (Some(progress), None, Some(NOW + 7)));
    assert_eq!(command.isolation.as_deref(), Some("best_effort"));
    // A clock that is ahead does not put the start into the future.
    let other = home.in_phase("a", Phase::Accepted).await;
    let ahead = ProgressReport { at: Some(NOW + HOUR), ..report(HeldPhase::Running) };
    home.store.progress(&other.uid, &agent, ahead, NOW + 3).await.unwrap();
    assert_eq!(home.command(other.id).await.started_at, Some(NOW + 3));
}

pub async fn others_cannot_speak_of_a_command(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    home.connected("b").await;
    let b = name("b");
    let uid = command.uid;
    assert!(matches!(home.store.acked(&uid, &b, AckAnswer::Expired, NOW).await, Err(StoreError::NotMine)));
    assert!(matches!(home.store.progress(&uid, &b, report(HeldPhase::Stopping), NOW).await, Err(StoreError::NotMine)));
    assert!(matches!(home.store.result(&uid, &b, ended(Outcome::Failed, &[]), NOW).await, Err(StoreError::NotMine)));
    assert_eq!(home.command(command.id).await.phase, Phase::Running);
    let unknown = common::id::Uid([1; 16]);
    assert!(matches!(home.store.acked(&unknown, &b, AckAnswer::Accepted, NOW).await, Err(StoreError::NotFound { .. })));
}

pub async fn due_agents_names_exactly_who_has_something(home: &Home) {
    home.in_phase("running", Phase::Running).await;
    home.in_phase("queued", Phase::Queued).await;
    home.queued("queued").await;
    home.in_phase("sent", Phase::Dispatched).await;
    let cancelled = home.in_phase("cancelled", Phase::Running).await;
    home.connected("idle").await;
    home.store.cancel(cancelled.id, wish(None), &admin(), NOW).await.unwrap();
    let due = async |now| -> Vec<String> {
        home.store.due_agents(RESEND, now).await.unwrap().iter().map(ToString::to_string).collect()
    };
    assert_eq!(due(NOW).await, ["cancelled", "queued"]);
    assert_eq!(home.due("cancelled", NOW).await.1, [cancelled.id]);
    assert_eq!(due(NOW).await, ["queued"]);
    assert_eq!(due(NOW + 10_000).await, ["cancelled", "queued", "sent"]);
}

pub async fn queued_commands_expire_and_sent_ones_do_not(home: &Home) {
    let sent = home.in_phase("a", Phase::Dispatched).await;
    let mut queued = Vec::new();
    for _ in 0..3 {
        queued.push(home.queued("a").await);
    }
    let later = home.store.submit(Submit { expires_at: NOW + 2 * HOUR, ..submit(&["a"]) }).await.unwrap();
    assert_eq!(home.store.expire_queued(NOW + HOUR - 1).await.unwrap(), 0);
    assert_eq!(home.store.expire_queued(NOW + HOUR).await.unwrap(), 3);
    assert_eq!(home.store.expire_queued(NOW + HOUR).await.unwrap(), 0);
    for id in queued {
        let command = home.command(id).await;
        assert_eq!(command.phase, Phase::Expired);
        assert_eq!(command.end.unwrap().outcome, Outcome::Expired);
    }
    assert_eq!(home.command(sent.id).await.phase, Phase::Dispatched);
    assert_eq!(home.command(later.commands[0]).await.phase, Phase::Queued);
}

/// Protocol R-CMD-9.
pub async fn agents_that_never_come_back_are_given_up(home: &Home) {
    let lost = home.in_phase("lost", Phase::Running).await;
    let here = home.in_phase("here", Phase::Running).await;
    let agent = home.store.agent(&name("lost")).await.unwrap().unwrap();
    home.store.agent_disconnected(&name("lost"), agent.epoch, NOW).await.unwrap();
    let week = NOW + 7 * 24 * HOUR;
    assert_eq!(home.store.give_up_lost(week - 1, LOST_AFTER).await.unwrap(), []);
    // The later of both bounds counts: a short patience still waits for the validity and an hour.
    let short = Duration::from_secs(1);
    assert_eq!(home.store.give_up_lost(NOW + 2 * HOUR - 1, short).await.unwrap(), []);
    assert_eq!(home.store.give_up_lost(week, LOST_AFTER).await.unwrap(), [lost.id]);
    let command = home.command(lost.id).await;
    assert_eq!(command.phase, Phase::Interrupted);
    assert_eq!(command.end.unwrap().error.unwrap().code, "agent_lost");
    assert_eq!(home.command(here.id).await.phase, Phase::Running);
}

pub async fn two_that_ask_at_once_share_what_is_due(home: &Home) {
    let (generation, _) = home.connected("a").await;
    for _ in 0..50 {
        home.queued("a").await;
    }
    home.store.agent_connected(connect("a", generation), NOW).await.unwrap();
    let ask = || {
        let store = home.store.clone();
        tokio::spawn(async move { store.due(taker("a", generation, 50), &everybody(), NOW).await.unwrap() })
    };
    let (one, two) = (ask(), ask());
    let mut all = kinds(&one.await.unwrap()).0;
    all.extend(kinds(&two.await.unwrap()).0);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 50);
}
