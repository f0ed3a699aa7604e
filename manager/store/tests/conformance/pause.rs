//! Pausing commands and letting them go on, and the options they were asked for with.

use std::fmt::Write as _;
use std::time::Duration;

use common::id::Name;
use common::model::{Outcome, Phase};
use store::StoreError;
use store::types::{
    AckAnswer, Command, DueKind, HeldPhase, Limits, Options, Pause, PauseAnswer, PauseHeard, Progress, ProgressReport,
    everybody,
};

use crate::world::{
    HOUR, Home, JOURNAL, NOW, RESEND, admin, connect, ended, held, listed, name, report, submit, taker, wish,
};

/// The wishes that are due for an agent.
async fn wishes(home: &Home, agent: &str, now: u64) -> Vec<Pause> {
    let row = home.store.agent(&name(agent)).await.unwrap().unwrap();
    let due = home.store.due(taker(agent, row.generation, 100), &everybody(), now).await.unwrap();
    let pauses = due.into_iter().filter_map(|due| match due.what {
        DueKind::Pause(wish, generation) => {
            assert_eq!(generation, row.generation);
            Some(wish)
        }
        _ => None,
    });
    pauses.collect()
}

async fn heard(home: &Home, command: &Command, number: u64, heard: PauseHeard) {
    home.store.pause_heard(&command.uid, &command.agent, number, heard, NOW).await.unwrap();
}

pub async fn a_wish_is_told_until_it_is_answered(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    assert_eq!(command.pause, None);
    assert_eq!(home.store.pause(command.id, &admin(), NOW).await.unwrap(), PauseAnswer::Wished);
    let shown = home.command(command.id).await.pause.unwrap();
    assert_eq!((shown.paused, shown.by.clone(), shown.at, shown.pending), (true, admin(), NOW, true));
    assert_eq!(home.store.due_agents(RESEND, NOW).await.unwrap(), [name("a")]);
    assert_eq!(wishes(home, "a", NOW).await, std::slice::from_ref(&shown));
    // Told in this session; told again after a while, and in the next session.
    assert_eq!(wishes(home, "a", NOW + 1).await, []);
    assert_eq!(home.store.due_agents(RESEND, NOW + 1).await.unwrap(), Vec::<Name>::new());
    assert_eq!(wishes(home, "a", NOW + 20_000).await.len(), 1);
    home.store.agent_connected(connect("a", command.generation), NOW + 20_001).await.unwrap();
    assert_eq!(home.store.due_agents(RESEND, NOW + 20_001).await.unwrap(), [name("a")]);
    assert_eq!(wishes(home, "a", NOW + 20_001).await.len(), 1);
    heard(home, &command, shown.wish, PauseHeard::Taken).await;
    let taken = home.command(command.id).await.pause.unwrap();
    assert_eq!((taken.paused, taken.pending, taken.refused), (true, false, None));
    home.store.agent_connected(connect("a", command.generation), NOW + 20_002).await.unwrap();
    assert_eq!(wishes(home, "a", NOW + HOUR).await, []);
    home.store.progress(&command.uid, &name("a"), report(HeldPhase::Paused), NOW).await.unwrap();
    assert_eq!(home.store.resume(command.id, &admin(), NOW).await.unwrap(), PauseAnswer::Wished);
    let resume = wishes(home, "a", NOW).await.remove(0);
    assert!(!resume.paused && resume.wish > shown.wish);
    heard(home, &command, resume.wish, PauseHeard::Taken).await;
    assert_eq!(home.command(command.id).await.pause, None, "nothing is left of a pause that is over");
}

pub async fn a_repeated_wish_changes_nothing(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    assert_eq!(home.store.resume(command.id, &admin(), NOW).await.unwrap(), PauseAnswer::Already);
    assert_eq!(home.command(command.id).await.pause, None);
    home.store.pause(command.id, &admin(), NOW).await.unwrap();
    let first = home.command(command.id).await.pause;
    let (events, audit) = (events(home).await, audited(home).await);
    assert_eq!(home.store.pause(command.id, &admin(), NOW + 5).await.unwrap(), PauseAnswer::Already);
    assert_eq!(home.command(command.id).await.pause, first);
    assert_eq!((self::events(home).await, audited(home).await), (events, audit));
    heard(home, &command, first.unwrap().wish, PauseHeard::Taken).await;
    assert_eq!(home.store.pause(command.id, &admin(), NOW + 5).await.unwrap(), PauseAnswer::Already);
    assert_eq!(wishes(home, "a", NOW + HOUR).await, []);
}

/// The kinds of all events.
async fn events(home: &Home) -> Vec<String> {
    home.store.events(0, 1_000, Default::default()).await.unwrap().into_iter().map(|event| event.kind).collect()
}

async fn audited(home: &Home) -> Vec<String> {
    home.store.audit_rows(0, 1_000).await.unwrap().into_iter().map(|row| row.action).collect()
}

pub async fn only_the_newest_wish_counts(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    home.store.pause(command.id, &admin(), NOW).await.unwrap();
    let first = wishes(home, "a", NOW).await.remove(0);
    // The clock may stand still or go back between two wishes.
    home.store.resume(command.id, &admin(), NOW - 5).await.unwrap();
    let second = wishes(home, "a", NOW).await.remove(0);
    assert!(second.wish > first.wish && !second.paused);
    heard(home, &command, first.wish, PauseHeard::Taken).await;
    assert!(home.command(command.id).await.pause.unwrap().pending, "an answer to an older wish says nothing");
    heard(home, &command, second.wish, PauseHeard::Taken).await;
    assert_eq!(home.command(command.id).await.pause, None);
    heard(home, &command, second.wish, PauseHeard::Refused("unsupported".to_owned())).await;
    assert_eq!(home.command(command.id).await.pause, None);
    home.store.pause(command.id, &admin(), 1).await.unwrap();
    let third = wishes(home, "a", NOW).await.remove(0);
    assert!(third.wish > second.wish, "the number of a wish that is done is never used again");
    let kinds: Vec<_> = events(home).await.into_iter().filter(|kind| kind.ends_with("_pending")).collect();
    assert_eq!(kinds, ["command.pause_pending", "command.resume_pending", "command.pause_pending"]);
    let actions: Vec<_> = audited(home).await.into_iter().filter(|row| row != "command.submit").collect();
    assert_eq!(actions[actions.len() - 3..], ["command.pause", "command.resume", "command.pause"]);
    home.store.verify_audit().await.unwrap();
}

pub async fn every_phase_answers_a_pause_as_the_table_says(home: &Home) {
    let mut table = String::new();
    for (index, phase) in Phase::ALL.into_iter().filter(|phase| !phase.is_final()).enumerate() {
        let command = home.in_phase(&format!("agent{index}"), phase).await;
        let answer = home.store.pause(command.id, &admin(), NOW).await.unwrap();
        let told = wishes(home, &format!("agent{index}"), NOW).await.len();
        writeln!(table, "{phase}: {answer:?} told {told}").unwrap();
    }
    for outcome in Outcome::ALL {
        let command = home.in_phase("ending", Phase::Running).await;
        home.store.result(&command.uid, &name("ending"), ended(outcome, &[]), NOW).await.unwrap();
        let answer = PauseAnswer::Final(outcome.into());
        assert_eq!(home.store.pause(command.id, &admin(), NOW).await.unwrap(), answer);
        assert_eq!(home.store.resume(command.id, &admin(), NOW).await.unwrap(), answer);
    }
    let expected = "\
queued: NotStarted told 0
dispatched: Wished told 0
accepted: Wished told 1
waiting: Wished told 1
running: Wished told 1
paused: Wished told 1
stopping: Stopping told 0
";
    assert_eq!(table, expected);
    let unknown = home.store.pause(common::id::CommandId(99), &admin(), NOW).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

pub async fn a_wish_for_a_command_on_its_way_waits_for_the_answer_to_it(home: &Home) {
    let command = home.in_phase("a", Phase::Dispatched).await;
    home.store.pause(command.id, &admin(), NOW).await.unwrap();
    assert_eq!(wishes(home, "a", NOW + 20_000).await, []);
    let answered = home.store.acked(&command.uid, &name("a"), AckAnswer::Accepted, NOW).await.unwrap();
    assert!(answered.wished, "whoever took the answer knows that there is something to tell");
    assert_eq!(wishes(home, "a", NOW + 20_000).await.len(), 1);
    let refused = home.in_phase("b", Phase::Dispatched).await;
    home.store.pause(refused.id, &admin(), NOW).await.unwrap();
    let answer = AckAnswer::Refused { code: "x".to_owned(), text: "x".to_owned() };
    assert!(!home.store.acked(&refused.uid, &name("b"), answer, NOW).await.unwrap().wished);
    assert_eq!(wishes(home, "b", NOW + HOUR).await, []);
}

pub async fn a_wish_ends_with_what_it_was_for(home: &Home) {
    for (agent, end) in [("a", "cancel"), ("b", "stopping"), ("c", "result"), ("d", "lost")] {
        let command = home.in_phase(agent, Phase::Running).await;
        home.store.pause(command.id, &admin(), NOW).await.unwrap();
        match end {
            "cancel" => {
                home.store.cancel(command.id, wish(None), &admin(), NOW).await.unwrap();
            }
            "stopping" => {
                home.store.progress(&command.uid, &name(agent), report(HeldPhase::Stopping), NOW).await.unwrap();
            }
            "result" => {
                let end = ended(Outcome::Succeeded, &[]);
                home.store.result(&command.uid, &name(agent), end, NOW).await.unwrap();
            }
            _ => {
                let generation = command.generation;
                home.store.reconcile_finish(&name(agent), generation, JOURNAL, listed(&[]), NOW).await.unwrap();
            }
        }
        // What a cancelled command has left to tell is the cancel.
        let asked = if end == "cancel" { vec![name(agent)] } else { Vec::new() };
        assert_eq!(home.store.due_agents(RESEND, NOW + 30_000).await.unwrap(), asked, "{end}");
        assert_eq!(wishes(home, agent, NOW + 30_000).await, [], "{end}");
    }
    let cancelled = home.in_phase("e", Phase::Running).await;
    home.store.cancel(cancelled.id, wish(None), &admin(), NOW).await.unwrap();
    assert_eq!(home.store.pause(cancelled.id, &admin(), NOW).await.unwrap(), PauseAnswer::Stopping);
    assert_eq!(home.store.resume(cancelled.id, &admin(), NOW).await.unwrap(), PauseAnswer::Stopping);
}

pub async fn a_refused_wish_is_shown_and_may_be_said_again(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    home.store.pause(command.id, &admin(), NOW).await.unwrap();
    let first = wishes(home, "a", NOW).await.remove(0);
    heard(home, &command, first.wish, PauseHeard::Refused("unsupported".to_owned())).await;
    let shown = home.command(command.id).await.pause.unwrap();
    assert_eq!((shown.pending, shown.refused.as_deref()), (false, Some("unsupported")));
    assert_eq!(wishes(home, "a", NOW + HOUR).await, []);
    let refusals = home.store.events(0, 1_000, Default::default()).await.unwrap();
    let refusal = refusals.iter().find(|event| event.kind == "command.pause_refused").unwrap();
    assert!(refusal.body.contains(r#""code":"unsupported""#), "{}", refusal.body);
    // It never paused, so there is nothing to go on with.
    assert_eq!(home.store.resume(command.id, &admin(), NOW).await.unwrap(), PauseAnswer::Already);
    assert_eq!(home.store.pause(command.id, &admin(), NOW).await.unwrap(), PauseAnswer::Wished);
    let second = wishes(home, "a", NOW).await.remove(0);
    heard(home, &command, second.wish, PauseHeard::Unknown).await;
    assert_eq!(home.command(command.id).await.pause, None, "of a wish that came too late nothing is left");
    let other = home.store.pause_heard(&command.uid, &name("b"), 1, PauseHeard::Taken, NOW).await;
    assert!(other.is_err(), "another agent has no say");
}

pub async fn wishes_survive_a_reopening(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    home.store.pause(command.id, &admin(), NOW).await.unwrap();
    let told = wishes(home, "a", NOW).await.remove(0);
    let store = home.reopened().await;
    assert_eq!(store.command(command.id).await.unwrap().unwrap().pause, Some(told.clone()));
    let epoch = store.agent_connected(connect("a", command.generation), NOW + 1).await.unwrap();
    assert!(epoch.0 > 0);
    let due = store.due(taker("a", command.generation, 10), &everybody(), NOW + 1).await.unwrap();
    assert!(matches!(&due[..], [due] if due.what == DueKind::Pause(told, command.generation)), "{due:?}");
}

pub async fn what_a_copy_of_the_store_finds_paused_can_go_on(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    let line = held(command.uid, command.generation, HeldPhase::Paused);
    home.store.reconcile_page(&name("a"), command.generation, JOURNAL, vec![line], NOW).await.unwrap();
    let found = home.command(command.id).await;
    assert_eq!((found.phase, found.pause), (Phase::Paused, None));
    assert_eq!(home.store.resume(command.id, &admin(), NOW).await.unwrap(), PauseAnswer::Wished);
    let wish = wishes(home, "a", NOW).await.remove(0);
    assert!(!wish.paused && wish.wish >= NOW, "later than any wish that the agent may have heard");
}

pub async fn a_place_in_the_queue_is_gone_when_the_wait_is_over(home: &Home) {
    let command = home.in_phase("a", Phase::Accepted).await;
    let waits = |current| ProgressReport {
        progress: Some(Progress { current, total: 17, text: String::new() }),
        waiting: Some("parallel_limit".to_owned()),
        ..report(HeldPhase::Waiting)
    };
    for place in [3, 2] {
        home.store.progress(&command.uid, &name("a"), waits(place), NOW).await.unwrap();
        let shown = home.command(command.id).await;
        assert_eq!((shown.phase, shown.waiting.as_deref()), (Phase::Waiting, Some("parallel_limit")));
        assert_eq!(shown.progress.map(|progress| (progress.current, progress.total)), Some((place, 17)));
    }
    home.store.progress(&command.uid, &name("a"), report(HeldPhase::Running), NOW).await.unwrap();
    let shown = home.command(command.id).await;
    assert_eq!((shown.phase, shown.waiting, shown.progress), (Phase::Running, None, None));
    let stuck = |text: &str| ProgressReport {
        progress: Some(Progress { current: 0, total: 0, text: text.to_owned() }),
        ..report(HeldPhase::Stopping)
    };
    home.store.progress(&command.uid, &name("a"), stuck("stuck: pids 12"), NOW).await.unwrap();
    assert_eq!(home.command(command.id).await.progress.unwrap().text, "stuck: pids 12");
    home.store.result(&command.uid, &name("a"), ended(Outcome::Cancelled, &[]), NOW).await.unwrap();
    assert_eq!(home.command(command.id).await.progress, None);
}

pub async fn options_come_back_as_they_were_given(home: &Home) {
    home.connected("a").await;
    home.connected("b").await;
    let mut asked = submit(&["a", "b"]);
    asked.as_job = true;
    asked.request.user = Some("nobody".to_owned());
    asked.request.limits = Limits { memory: Some(1 << 28), tasks: Some(64), best_effort: true, ..Limits::default() };
    asked.request.options = Options {
        umask: Some(0),
        nice: Some(-20),
        oom_score: Some(1000),
        keep_strays: true,
        stop_signal: Some(2),
        stop_only_main: true,
        grace: Some(Duration::from_millis(200)),
    };
    let submitted = home.store.submit(asked.clone()).await.unwrap();
    for id in submitted.commands {
        assert_eq!(home.command(id).await.request, asked.request);
    }
    let plain = home.queued("a").await;
    assert_eq!(home.command(plain).await.request.options, Options::default());
}

pub async fn an_agent_that_flips_a_command_for_ever_fills_no_history(home: &Home) {
    const BOUND: u64 = 10_000;
    let command = home.in_phase("a", Phase::Accepted).await;
    let flip = |number: u64| if number.is_multiple_of(2) { HeldPhase::Paused } else { HeldPhase::Running };
    let agent = name("a");
    // Many at once share a commit.
    for first in (1..=BOUND + 500).step_by(500) {
        let flips =
            (first..first + 500).map(|number| home.store.progress(&command.uid, &agent, report(flip(number)), NOW));
        for flipped in futures_in_order(flips).await {
            flipped.unwrap();
        }
    }
    assert_eq!(home.command(command.id).await.phase, Phase::Paused, "the phase follows");
    home.store.result(&command.uid, &agent, ended(Outcome::Succeeded, &[]), NOW).await.unwrap();
    let mut moves = 0;
    let mut after = 0;
    let mut last = String::new();
    loop {
        let page = home.store.events(after, 1_000, Default::default()).await.unwrap();
        let Some(newest) = page.last() else { break };
        (after, last) = (newest.seq, newest.kind.clone());
        moves +=
            page.iter().filter(|event| matches!(event.kind.as_str(), "command.running" | "command.paused")).count();
    }
    assert_eq!((moves as u64, last.as_str()), (BOUND, "command.succeeded"));
}

/// Polls futures for the first time in their order and waits for all.
async fn futures_in_order<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in waiting.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        match waiting.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}
