//! What an agent holds against what is known here.

use common::id::{Generation, Uid};
use common::model::{Outcome, Phase, StreamName};
use store::StoreError;
use store::types::{Held, HeldPhase, OutputRead, Verdict};

use crate::world::{Home, JOURNAL, NOW, admin, ended, held, listed, name, wish};

const OTHER_JOURNAL: Uid = Uid([8; 16]);

/// Judges one line.
async fn verdict(home: &Home, agent: &str, generation: Generation, line: Held) -> Verdict {
    let uid = line.uid;
    let mut verdicts = home.store.reconcile_page(&name(agent), generation, JOURNAL, vec![line], NOW).await.unwrap();
    let (judged, verdict) = verdicts.remove(0);
    assert_eq!(judged, uid);
    verdict
}

pub async fn every_pair_of_knowledge_has_its_verdict(home: &Home) {
    use HeldPhase as H;
    use Phase as P;
    let known = [P::Queued, P::Dispatched, P::Accepted, P::Waiting, P::Running, P::Paused, P::Stopping];
    let claims = [H::Accepted, H::Waiting, H::Running, H::Paused, H::Stopping, H::Ended];
    let mut table = String::new();
    for phase in known {
        table.push_str(&format!("{:<11}", phase.as_str()));
        for claim in claims {
            let command = home.in_phase("a", phase).await;
            let line = held(command.uid, command.generation, claim);
            let answer = verdict(home, "a", command.generation, line).await;
            assert_eq!(answer, Verdict::Continue { command: command.id, from: vec![], cancel: None });
            let after = home.command(command.id).await;
            assert!(after.first_sent_journal == Some(JOURNAL) && after.accepted_at.is_some());
            table.push_str(&format!(" {:<9}", after.phase.as_str()));
            // Out of the way of the next sends.
            home.store.result(&command.uid, &name("a"), ended(Outcome::Succeeded, &[]), NOW).await.unwrap();
        }
        table.push('\n');
    }
    let expected = "\
queued      accepted  waiting   running   paused    stopping  accepted \n\
dispatched  accepted  waiting   running   paused    stopping  accepted \n\
accepted    accepted  waiting   running   paused    stopping  accepted \n\
waiting     waiting   waiting   running   paused    stopping  waiting  \n\
running     running   running   running   paused    stopping  running  \n\
paused      paused    paused    running   paused    stopping  paused   \n\
stopping    stopping  stopping  stopping  stopping  stopping  stopping \n";
    assert_eq!(table, expected, "\n{table}");

    let running = home.in_phase("a", P::Running).await;
    let generation = running.generation;
    // Nobody here knows it.
    assert_eq!(verdict(home, "a", generation, held(Uid([1; 16]), generation, H::Running)).await, Verdict::Describe);
    // It belongs to another bearer, or to another agent.
    let other = Generation(generation.0 + 1);
    assert_eq!(verdict(home, "a", generation, held(running.uid, other, H::Running)).await, Verdict::NotMine);
    let (b, _) = home.connected("b").await;
    assert_eq!(verdict(home, "b", b, held(running.uid, b, H::Running)).await, Verdict::NotMine);
    // A wish to stop goes along, unless it is over there.
    home.store.cancel(running.id, wish(None), &admin(), NOW).await.unwrap();
    let stop = verdict(home, "a", generation, held(running.uid, generation, H::Running)).await;
    assert!(matches!(stop, Verdict::Continue { cancel: Some(_), .. }));
    let over = verdict(home, "a", generation, held(running.uid, generation, H::Ended)).await;
    assert!(matches!(over, Verdict::Continue { cancel: None, .. }));
    // Cancelled here without ever being sent, and there all the same: stop it.
    let queued = home.in_phase("a", P::Queued).await;
    home.store.cancel(queued.id, wish(None), &admin(), NOW).await.unwrap();
    let stop = verdict(home, "a", generation, held(queued.uid, generation, H::Running)).await;
    assert!(matches!(stop, Verdict::Continue { cancel: Some(_), .. }));
    assert_eq!(home.command(queued.id).await.phase, P::Cancelled);
    // A session of an older bearer is told nothing.
    let fenced =
        home.store.reconcile_page(&name("a"), other, JOURNAL, vec![held(running.uid, other, H::Ended)], NOW).await;
    assert!(matches!(fenced, Err(StoreError::Fenced(_))));
}

/// Protocol R-INV-5.
pub async fn what_is_not_listed_is_settled_by_its_journal(home: &Home) {
    let sent = home.in_phase("a", Phase::Dispatched).await;
    let wished = home.in_phase("a", Phase::Dispatched).await;
    home.store.cancel(wished.id, wish(None), &admin(), NOW).await.unwrap();
    assert_eq!(home.due("a", NOW).await.1, [wished.id]);
    let accepted = home.in_phase("a", Phase::Accepted).await;
    let running = home.in_phase("a", Phase::Running).await;
    let kept = home.in_phase("a", Phase::Running).await;
    let queued = home.in_phase("a", Phase::Queued).await;
    let (agent, generation) = (name("a"), sent.generation);

    let lost = home.store.reconcile_finish(&agent, generation, JOURNAL, listed(&[kept.uid]), NOW).await.unwrap();
    assert_eq!(lost, [accepted.id, running.id]);
    for id in lost {
        let command = home.command(id).await;
        assert_eq!(command.phase, Phase::Interrupted);
        assert_eq!(command.end.unwrap().error.unwrap().code, "record_lost");
    }
    // Never arrived: due again at once, the one as itself and the other as its cancellation.
    assert_eq!(home.due("a", NOW).await, (vec![sent.id, queued.id], vec![wished.id]));
    assert_eq!(home.command(kept.id).await.phase, Phase::Running);

    let lost = home.store.reconcile_finish(&agent, generation, OTHER_JOURNAL, listed(&[]), NOW).await.unwrap();
    assert_eq!(lost, [sent.id, wished.id, kept.id, queued.id]);
    for id in lost {
        let command = home.command(id).await;
        assert_eq!(command.phase, Phase::Interrupted);
        assert_eq!(command.end.unwrap().error.unwrap().code, "journal_lost");
    }
    assert_eq!(home.due("a", NOW + 100_000).await, (vec![], vec![]));
    let fenced = home.store.reconcile_finish(&agent, Generation(99), JOURNAL, listed(&[]), NOW).await;
    assert!(matches!(fenced, Err(StoreError::Fenced(_))));
}

pub async fn an_inventory_with_nothing_missing_changes_nothing(home: &Home) {
    let running = home.in_phase("a", Phase::Running).await;
    home.in_phase("a", Phase::Queued).await;
    let before = home.store.position();
    let generation = running.generation;
    verdict(home, "a", generation, held(running.uid, generation, HeldPhase::Running)).await;
    let lost = home.store.reconcile_finish(&name("a"), generation, JOURNAL, listed(&[running.uid]), NOW).await.unwrap();
    assert_eq!(lost, []);
    assert_eq!(home.store.position(), before);
}

pub async fn an_acked_result_may_be_forgotten_and_bytes_that_are_gone_are_a_gap(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    let generation = command.generation;
    let ended_line = held(command.uid, generation, HeldPhase::Ended);
    home.write(command.id, 0, b"ok").await.unwrap();
    let all = ended(Outcome::Succeeded, &[(StreamName::Stdout, 2)]);
    let taken = home.store.result(&command.uid, &name("a"), all, NOW).await.unwrap();
    assert!(!taken.acked, "the bytes are not synced yet");
    // The end is here, the word that it may forget never reached it: the usual way is walked again.
    let answer = verdict(home, "a", generation, ended_line.clone()).await;
    assert!(matches!(answer, Verdict::Continue { .. }));
    home.store.mark_result_acked(vec![command.id]).await.unwrap();
    assert_eq!(verdict(home, "a", generation, ended_line).await, Verdict::Forget);

    // Without bytes the end is all there is: with its commit the agent may forget.
    let silent = home.in_phase("a", Phase::Running).await;
    let taken = home.store.result(&silent.uid, &name("a"), ended(Outcome::Succeeded, &[]), NOW).await.unwrap();
    assert!(taken.acked && home.command(silent.id).await.result_acked);
    let silent_line = held(silent.uid, generation, HeldPhase::Ended);
    assert_eq!(verdict(home, "a", generation, silent_line).await, Verdict::Forget);

    // An older copy of the store knows it as running; its agent has only the end left.
    let older = home.in_phase("a", Phase::Running).await;
    home.write(older.id, 0, b"abc").await.unwrap();
    let stone = Held { tombstone: true, ..held(older.uid, generation, HeldPhase::Ended) };
    assert!(matches!(verdict(home, "a", generation, stone).await, Verdict::Continue { .. }));
    let reported = ended(Outcome::Succeeded, &[(StreamName::Stdout, 9)]);
    home.store.result(&older.uid, &name("a"), reported, NOW).await.unwrap();
    assert!(home.store.ready_for_ack(older.id).await.unwrap());
    let rest = home.store.read_output(older.id, StreamName::Stdout, 3, 10).await.unwrap();
    assert!(matches!(rest, OutputRead::Gap(gap) if gap.length == 6));
}

pub async fn offsets_tell_where_to_go_on(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    home.write(command.id, 0, b"12345").await.unwrap();
    let line = held(command.uid, command.generation, HeldPhase::Running);
    let answer = verdict(home, "a", command.generation, line).await;
    let expected = Verdict::Continue { command: command.id, from: vec![(StreamName::Stdout, 5)], cancel: None };
    assert_eq!(answer, expected);
    assert_eq!(home.store.reconcile_page(&name("a"), command.generation, JOURNAL, vec![], NOW).await.unwrap(), []);
}
