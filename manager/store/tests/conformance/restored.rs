//! Stores that came back from a backup.

use std::time::Duration;

use common::id::{CommandId, Generation, JobId, StorePosition, Uid};
use common::model::{Outcome, Phase, StreamName};
use store::types::{Gap, Held, HeldPhase, Import, NewToken, Retention, Scope, Verdict, everybody};
use store::{Store, StoreError};

use crate::world::{
    HOUR, Home, JOURNAL, NOW, RESEND, admin, connect, ended, held, kinds, listed, name, only, request, submit, taker,
};

fn import(home_generation: common::id::Generation, uid: u8, id: u64) -> Import {
    Import {
        agent: name("a"),
        uid: Uid([uid; 16]),
        id: CommandId(id),
        generation: home_generation,
        job: Some(JobId(77)),
        attempt: 1,
        request: request(),
        created_at: NOW,
        expires_at: NOW + HOUR,
        phase: HeldPhase::Running,
        tombstone: false,
        journal: JOURNAL,
    }
}

pub async fn a_new_life_jumps_ahead_and_holds_what_was_queued(home: &Home) {
    let sent = home.in_phase("a", Phase::Dispatched).await;
    let queued = home.in_phase("a", Phase::Queued).await;
    let before = home.store.identity();
    let events = home.store.position().last_event;
    let heard = StorePosition(home.store.position().position.0 + 500);
    let identity = home.store.declare_restored(&name("a"), heard, NOW).await.unwrap();
    assert_eq!(identity, home.store.identity());
    assert_eq!(identity.cluster, before.cluster);
    assert!(identity.incarnation > before.incarnation);
    assert!(home.store.position().position.0 > heard.0 + 1_000_000);
    assert!(home.store.position().last_event > events + 1_000_000);

    let row = home.command(queued.id).await;
    assert_eq!((row.phase, row.waiting.as_deref()), (Phase::Queued, Some("restored")));
    assert_eq!(home.store.due_agents(RESEND, NOW).await.unwrap(), []);
    assert_eq!(home.due("a", NOW).await, (vec![], vec![]));
    // What had been sent goes on as ever: its agent refuses duplicates.
    assert_eq!(home.due("a", NOW + 60_000).await.0, [sent.id]);

    let next = only(&home.store.submit(submit(&["a"])).await.unwrap());
    assert!(next.0 > queued.id.0 + 1_000_000);
    assert_eq!(home.command(next).await.waiting, None);
    let (b, _) = home.store.ensure_agent(&name("b"), &admin(), NOW).await.unwrap();
    assert!(b.generation.0 > sent.generation.0 + 1_000_000);
    // Held ones can still be cancelled, expire, and be ended by an agent that has them after all.
    assert_eq!(home.store.expire_queued(NOW + HOUR).await.unwrap(), 2);
}

pub async fn an_agent_that_heard_more_shows_that_the_store_is_a_copy(home: &Home) {
    let (generation, _) = home.connected("a").await;
    let life = home.store.identity().incarnation;
    let copy = home.folder().join("copy");
    home.store.backup(&copy).await.unwrap();
    home.queued("a").await;
    let heard = home.store.position().position;
    assert!(!home.store.is_behind(generation, life, heard).await.unwrap());

    let restored = Store::open(&copy).await.unwrap();
    // Other agents come first, and the copy makes more changes than it lost.
    for other in 0..10 {
        restored.ensure_agent(&name(&format!("other{other}")), &admin(), NOW).await.unwrap();
    }
    assert!(restored.position().position > heard);
    assert!(restored.is_behind(generation, life, heard).await.unwrap());
    let new = restored.declare_restored(&name("a"), heard, NOW).await.unwrap();
    // Told once, nobody is behind any more, whichever life they heard of last.
    assert!(!restored.is_behind(generation, life, heard).await.unwrap());
    restored.agent_connected(connect("a", generation), NOW).await.unwrap();
    let heard = restored.position().position;
    assert!(!restored.is_behind(generation, new.incarnation, heard).await.unwrap());
    assert!(!restored.is_behind(generation, common::id::Incarnation(0), StorePosition(0)).await.unwrap());
    // The original never had that life.
    assert!(home.store.is_behind(generation, new.incarnation, StorePosition(0)).await.unwrap());
    restored.close().await;
}

pub async fn a_held_command_is_released_once(home: &Home) {
    let queued = home.in_phase("a", Phase::Queued).await;
    let known_there = home.in_phase("a", Phase::Queued).await;
    assert!(matches!(home.store.release_restored(queued.id, &admin(), NOW).await, Err(StoreError::Conflict { .. })));
    home.store.declare_restored(&name("a"), StorePosition(0), NOW).await.unwrap();
    home.store.release_restored(queued.id, &admin(), NOW).await.unwrap();
    assert!(home.store.release_restored(queued.id, &admin(), NOW).await.is_err());
    assert!(home.store.release_restored(CommandId(1 << 40), &admin(), NOW).await.is_err());
    assert_eq!(home.due("a", NOW).await.0, [queued.id]);
    let taken = home.store.result(&known_there.uid, &name("a"), ended(Outcome::Failed, &[]), NOW).await.unwrap();
    assert_eq!(taken.phase, Phase::Failed);
    assert_eq!(home.command(known_there.id).await.waiting, None);
}

pub async fn an_import_keeps_a_free_id_and_overwrites_nothing(home: &Home) {
    let known = home.in_phase("a", Phase::Running).await;
    let generation = known.generation;
    home.store.declare_restored(&name("a"), StorePosition(10), NOW).await.unwrap();
    let kept = home.store.import(import(generation, 1, known.id.0 + 5), NOW).await.unwrap();
    assert_eq!(kept, CommandId(known.id.0 + 5));
    let command = home.command(kept).await;
    assert_eq!((command.phase, command.uid, command.job), (Phase::Running, Uid([1; 16]), None));
    assert_eq!((command.request, command.first_sent_journal), (request(), Some(JOURNAL)));
    // Repeats find it; a taken id gets a new one; the known row stands.
    assert_eq!(home.store.import(import(generation, 1, 1), NOW).await.unwrap(), kept);
    let moved = home.store.import(import(generation, 2, known.id.0), NOW).await.unwrap();
    assert!(moved.0 > known.id.0 + 1_000_000);
    assert_eq!(home.command(known.id).await.uid, known.uid);
    // Its end is history like any other.
    home.store.result(&Uid([1; 16]), &name("a"), ended(Outcome::Succeeded, &[]), NOW).await.unwrap();
    assert_eq!(home.command(kept).await.phase, Phase::Succeeded);
}

pub async fn an_import_cannot_move_the_counter(home: &Home) {
    let (generation, _) = home.connected("a").await;
    let last = home.queued("a").await;
    let ahead = home.store.import(import(generation, 1, i64::MAX as u64), NOW).await.unwrap();
    assert_eq!(ahead, CommandId(last.0 + 1));
    let none = home.store.import(import(generation, 2, 0), NOW).await.unwrap();
    assert_eq!(none, CommandId(last.0 + 2));
    let other = common::id::Generation(generation.0 + 1);
    assert!(matches!(home.store.import(import(other, 3, 0), NOW).await, Err(StoreError::NotMine)));
    // A uid of another agent is not taken over.
    let theirs = home.in_phase("b", Phase::Running).await;
    let steal = Import { uid: theirs.uid, ..import(generation, 0, 0) };
    assert!(matches!(home.store.import(steal, NOW).await, Err(StoreError::NotMine)));
}

pub async fn an_import_keeps_no_id_that_was_ever_given_out_here(home: &Home) {
    let gone = home.in_phase("a", Phase::Running).await;
    let generation = gone.generation;
    home.store.result(&gone.uid, &name("a"), ended(Outcome::Succeeded, &[]), NOW).await.unwrap();
    let last = home.queued("a").await;
    let week = Duration::from_secs(7 * 24 * 3600);
    let retention = Retention { commands: week, events: week, audit: None };
    assert_eq!(home.store.prune(retention, NOW + 8 * 24 * HOUR).await.unwrap().commands, 1);
    // Free, and yet the audit speaks of it; ids of the present counting are those of commands to come.
    let moved = home.store.import(import(generation, 1, gone.id.0), NOW).await.unwrap();
    assert_eq!(moved, CommandId(last.0 + 1));
    home.store.declare_restored(&name("a"), StorePosition(10), NOW).await.unwrap();
    assert_ne!(home.store.import(import(generation, 2, gone.id.0), NOW).await.unwrap(), gone.id);
    // The first and the last that were skipped.
    for (uid, id) in [(3, moved.0 + 1), (4, moved.0 + 1_000_000)] {
        assert_eq!(home.store.import(import(generation, uid, id), NOW).await.unwrap(), CommandId(id));
    }
    let beyond = moved.0 + 1_000_001;
    let next = home.queued("a").await;
    assert!(next.0 > beyond);
    assert!(home.store.import(import(generation, 5, next.0 + 100), NOW).await.unwrap().0 == next.0 + 1);
    // Still so after a restart: agents come back when they can.
    let again = home.reopened().await;
    assert_eq!(again.import(import(generation, 6, moved.0 + 7), NOW).await.unwrap(), CommandId(moved.0 + 7));
    again.close().await;
}

pub async fn what_an_older_copy_runs_ends_as_the_tombstone_of_its_agent_says(home: &Home) {
    let running = home.in_phase("a", Phase::Running).await;
    let generation = running.generation;
    home.write(running.id, 0, b"abc").await.unwrap();
    let copy = home.folder().join("copy");
    home.store.backup(&copy).await.unwrap();
    let restored = Store::open(&copy).await.unwrap();
    restored.declare_restored(&name("a"), home.store.position().position, NOW).await.unwrap();
    restored.agent_connected(connect("a", generation), NOW).await.unwrap();
    // An old tombstone does not say for whom the command was made.
    for said in [generation, Generation(0)] {
        let stone = Held { tombstone: true, ..held(running.uid, said, HeldPhase::Ended) };
        let page = restored.reconcile_page(&name("a"), generation, JOURNAL, vec![stone], NOW).await.unwrap();
        let from = vec![(StreamName::Stdout, 3)];
        assert_eq!(page, [(running.uid, Verdict::Continue { command: running.id, from, cancel: None })]);
    }
    let names = listed(&[running.uid]);
    assert_eq!(restored.reconcile_finish(&name("a"), generation, JOURNAL, names, NOW).await.unwrap(), []);
    let reported = ended(Outcome::Failed, &[(StreamName::Stdout, 9)]);
    restored.result(&running.uid, &name("a"), reported, NOW).await.unwrap();
    let row = restored.command(running.id).await.unwrap().unwrap();
    assert_eq!((row.phase, row.end.unwrap().error), (Phase::Failed, None));
    let stdout = &row.streams[0];
    assert_eq!((stdout.length, stdout.end, &stdout.gaps), (9, true, &vec![Gap { offset: 3, length: 6 }]));
    restored.close().await;
}

pub async fn a_tombstone_that_nobody_knows_is_described_only_when_it_says_whose_it_is(home: &Home) {
    let (generation, _) = home.connected("a").await;
    for (said, expected) in [(generation, Verdict::Describe), (Generation(0), Verdict::NotMine)] {
        let stone = Held { tombstone: true, ..held(Uid([5; 16]), said, HeldPhase::Ended) };
        let page = home.store.reconcile_page(&name("a"), generation, JOURNAL, vec![stone], NOW).await.unwrap();
        assert_eq!(page, [(Uid([5; 16]), expected)]);
    }
}

pub async fn an_absurd_position_cannot_lock_out_those_who_heard_it(home: &Home) {
    const FARTHEST: u64 = 1 << 40;
    let ours = home.store.position().position.0;
    home.store.declare_restored(&name("a"), StorePosition(ours + FARTHEST), NOW).await.unwrap();
    assert_eq!(home.store.position().position.0, ours + FARTHEST + 1_000_000 + 1, "the farthest that is believed");
    for heard in [(1 << 53) + 1, i64::MAX as u64, u64::MAX] {
        let before = home.store.identity();
        let ours = home.store.position().position.0;
        let after = home.store.declare_restored(&name("a"), StorePosition(heard), NOW).await.unwrap();
        assert!(after.incarnation > before.incarnation);
        let now = home.store.position().position.0;
        assert_eq!(now, ours + FARTHEST + 1_000_000 + 1, "one claim pushes only so far");
    }
    // Whoever claimed it can be found.
    let rows = home.store.audit_rows(0, 100).await.unwrap();
    let claim = rows.iter().rfind(|row| row.action == "store.restored").unwrap();
    let details: serde_json::Value = serde_json::from_str(&claim.details).unwrap();
    assert_eq!((details["claimed_by"].as_str(), details["heard"].as_u64()), (Some("a"), Some(u64::MAX)));
}

pub async fn a_backup_opens_as_a_store(home: &Home) {
    let running = home.in_phase("a", Phase::Running).await;
    home.write(running.id, 0, b"kept").await.unwrap();
    let copy = home.folder().join("copy");
    home.store.backup(&copy).await.unwrap();
    assert!(home.store.backup(&copy).await.is_err(), "a copy is never overwritten");
    let after = home.queued("a").await;

    let restored = Store::open(&copy).await.unwrap();
    assert_eq!(restored.identity(), home.store.identity());
    assert_eq!(restored.command(running.id).await.unwrap().unwrap().streams[0].length, 4);
    assert_eq!(restored.command(after).await.unwrap(), None);
    restored.verify_audit().await.unwrap();
    // Behind what agents heard of the original: it can tell that it is a copy.
    assert!(restored.position().position < home.store.position().position);
    let epoch = restored.agent_connected(connect("a", running.generation), NOW).await.unwrap();
    assert!(epoch.0 > 1);
    let due = restored.due(taker("a", running.generation, 10), &everybody(), NOW).await.unwrap();
    assert_eq!(kinds(&due), (vec![], vec![]));
    restored.close().await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&copy.join("paprika.db").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

pub async fn revocations_outlive_a_restored_backup(home: &Home) {
    let running = home.in_phase("a", Phase::Running).await;
    let token = NewToken {
        id: "t1".into(),
        hash: [1; 32],
        name: "ci".into(),
        scope: Scope::Run,
        roles: vec![],
        expires_at: None,
    };
    home.store.token_create(token, &admin(), NOW).await.unwrap();
    let copy = home.folder().join("copy");
    home.store.backup(&copy).await.unwrap();
    home.store.token_revoke("t1", &admin(), NOW).await.unwrap();
    home.store.remove_agent(&name("a"), &admin(), NOW).await.unwrap();
    home.store.close().await;
    for file in ["paprika.db", "output.db"] {
        std::fs::copy(copy.join(file), home.folder().join(file)).unwrap();
    }
    let restored = Store::open(home.folder()).await.unwrap();
    assert!(restored.token_by_id("t1").await.unwrap().unwrap().0.revoked_at.is_some());
    assert_eq!(restored.agent(&name("a")).await.unwrap(), None);
    // The copy knew the agent and its command: the removal is done again with everything that belongs to it.
    let ended = restored.command(running.id).await.unwrap().unwrap();
    assert_eq!(ended.phase, Phase::Interrupted);
    assert_eq!(ended.end.and_then(|end| end.error).map(|error| error.code).as_deref(), Some("agent_removed"));
    restored.close().await;
}
