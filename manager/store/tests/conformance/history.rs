//! Events, audit, retention.

use std::time::Duration;

use common::model::{Outcome, Phase, StreamName};
use rusqlite::Connection;
use store::StoreError;
use store::types::{AuditEntry, AuditOutcome, EventFilter, OutputRead, Pruned, Retention, Submit};

use crate::world::{HOUR, Home, NOW, admin, ended, keyed, name, submit, wish};

/// Changes the main file behind the back of the store.
fn tamper(home: &Home, sql: &str) {
    let file = Connection::open(home.folder().join("paprika.db")).unwrap();
    assert_eq!(file.execute(sql, []).unwrap(), 1);
}

pub async fn the_audit_holds_and_every_change_is_in_it(home: &Home) {
    assert_eq!(home.store.verify_audit().await.unwrap(), 0);
    let command = home.in_phase("a", Phase::Running).await;
    home.store.cancel(command.id, wish(None), &admin(), NOW).await.unwrap();
    home.store.set_drained(&name("a"), true, &admin(), NOW).await.unwrap();
    home.store.set_drained(&name("a"), true, &admin(), NOW).await.unwrap();
    let refusal = AuditEntry {
        actor: admin(),
        action: "token.create".to_owned(),
        object: "x".to_owned(),
        outcome: AuditOutcome::Refused,
        details: "{}".to_owned(),
    };
    home.store.audit(refusal, NOW + 1).await.unwrap();
    let rows = home.store.audit_rows(0, 100).await.unwrap();
    let actions: Vec<(&str, &str)> = rows.iter().map(|row| (row.action.as_str(), row.outcome.as_str())).collect();
    let expected = [
        ("agent.create", "done"),
        ("command.submit", "done"),
        ("command.cancel", "done"),
        ("agent.drain", "done"),
        ("token.create", "refused"),
    ];
    assert_eq!(actions, expected);
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(home.store.audit_rows(3, 1).await.unwrap()[0].seq, 4);
    assert_eq!(home.store.verify_audit().await.unwrap(), 5);
}

pub async fn a_changed_row_is_found(home: &Home) {
    home.connected("a").await;
    for _ in 0..4 {
        home.queued("a").await;
    }
    tamper(home, "UPDATE audit SET actor = 'somebody' WHERE seq = 3");
    assert!(matches!(home.store.verify_audit().await, Err(StoreError::AuditBroken { seq: 3 })));
}

pub async fn a_missing_row_is_found_also_at_the_end(home: &Home) {
    home.connected("a").await;
    for _ in 0..4 {
        home.queued("a").await;
    }
    tamper(home, "DELETE FROM audit WHERE seq = 5");
    assert!(matches!(home.store.verify_audit().await, Err(StoreError::AuditBroken { seq: 5 })));
    tamper(home, "DELETE FROM audit WHERE seq = 2");
    assert!(matches!(home.store.verify_audit().await, Err(StoreError::AuditBroken { seq: 2 })));
}

pub async fn events_are_numbered_without_holes_and_filtered(home: &Home) {
    let a = home.in_phase("a", Phase::Running).await;
    home.in_phase("b", Phase::Queued).await;
    // A change that fails takes its number back.
    home.store.submit(submit(&["a", "ghost"])).await.unwrap_err();
    home.queued("b").await;
    let all = home.store.events(0, 100, EventFilter::default()).await.unwrap();
    assert!(all.iter().enumerate().all(|(index, event)| event.seq == index as u64 + 1));
    assert_eq!(all.last().map(|event| event.seq), Some(home.store.position().last_event));
    let of_a = EventFilter { command: Some(a.id), ..EventFilter::default() };
    let kinds: Vec<String> =
        home.store.events(0, 100, of_a).await.unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["command.queued", "command.dispatched", "command.accepted", "command.running"]);
    let agents = EventFilter { kind_prefix: Some("agent.".to_owned()), agent: Some(name("b")), ..Default::default() };
    assert_eq!(home.store.events(0, 100, agents).await.unwrap().len(), 2);
    assert_eq!(home.store.events(2, 3, EventFilter::default()).await.unwrap(), all[2..5]);
}

pub async fn old_history_goes_and_the_rest_still_holds(home: &Home) {
    let done = home.in_phase("a", Phase::Running).await;
    home.write(done.id, 0, b"bytes").await.unwrap();
    let reported = ended(Outcome::Succeeded, &[(StreamName::Stdout, 5)]);
    home.store.result(&done.uid, &name("a"), reported, NOW).await.unwrap();
    home.store.mark_result_acked(vec![done.id]).await.unwrap();
    let undelivered = home.in_phase("a", Phase::Running).await;
    let owing = ended(Outcome::Failed, &[(StreamName::Stdout, 5)]);
    home.store.result(&undelivered.uid, &name("a"), owing, NOW).await.unwrap();
    let open = home.in_phase("a", Phase::Running).await;
    home.store.submit(keyed(&["a"], "old", 1)).await.unwrap();
    home.in_phase("gone", Phase::Queued).await;
    home.store.remove_agent(&name("gone"), &admin(), NOW).await.unwrap();
    let later = NOW + 100 * HOUR;
    let fresh = Submit { now: later - HOUR, expires_at: later + HOUR, ..keyed(&["a"], "new", 1) };
    let fresh = home.store.submit(fresh).await.unwrap();

    let day = Duration::from_secs(24 * 3600);
    let retention = Retention { commands: day, events: day, audit: Some(day) };
    let pruned = home.store.prune(retention, later).await.unwrap();
    assert_eq!((pruned.commands, pruned.keys, pruned.agents), (2, 1, 1));
    assert!(pruned.events > 0 && pruned.audit > 0);
    assert_eq!(home.store.command(done.id).await.unwrap(), None);
    let bytes = home.store.read_output(done.id, StreamName::Stdout, 0, 10).await.unwrap();
    assert_eq!(bytes, OutputRead::Nothing);
    assert_eq!(home.command(undelivered.id).await.phase, Phase::Failed);
    assert_eq!(home.command(open.id).await.phase, Phase::Running);
    assert_eq!(home.command(fresh.commands[0]).await.phase, Phase::Queued);
    assert_eq!(home.store.verify_audit().await.unwrap(), 1);
    assert_eq!(home.store.events(0, 10, EventFilter::default()).await.unwrap().len(), 1);
    assert_eq!(home.store.prune(retention, later).await.unwrap(), Pruned::default());
}

pub async fn the_position_grows_with_changes_only(home: &Home) {
    let (generation, _) = home.connected("a").await;
    let before = home.store.position();
    home.store.ensure_agent(&name("a"), &admin(), NOW).await.unwrap();
    home.store.accept_agent(&name("a"), &admin(), NOW).await.unwrap();
    home.due("a", NOW).await;
    home.store.agent_disconnected(&name("a"), common::id::Epoch(77), NOW).await.unwrap();
    assert_eq!(home.store.position(), before);
    home.queued("a").await;
    assert!(home.store.position().position > before.position);
    let last = home.store.position();
    let store = home.reopened().await;
    assert_eq!(store.position(), last);
    assert_eq!(store.agent(&name("a")).await.unwrap().map(|agent| agent.generation), Some(generation));
    store.close().await;
}
