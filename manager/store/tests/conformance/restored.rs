//! Stores that came back from a backup.

use common::id::{CommandId, JobId, StorePosition, Uid};
use common::model::{Outcome, Phase};
use store::types::{HeldPhase, Import, NewToken, Scope};
use store::{Store, StoreError};

use crate::world::{HOUR, Home, JOURNAL, NOW, RESEND, admin, connect, ended, kinds, name, only, request, submit};

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
        journal: JOURNAL,
    }
}

pub async fn a_new_life_jumps_ahead_and_holds_what_was_queued(home: &Home) {
    let sent = home.in_phase("a", Phase::Dispatched).await;
    let queued = home.in_phase("a", Phase::Queued).await;
    let before = home.store.identity();
    let events = home.store.position().last_event;
    let heard = StorePosition(home.store.position().position.0 + 500);
    let identity = home.store.declare_restored(heard, NOW).await.unwrap();
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
    let new = restored.declare_restored(heard, NOW).await.unwrap();
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
    home.store.declare_restored(StorePosition(0), NOW).await.unwrap();
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
    home.store.declare_restored(StorePosition(10), NOW).await.unwrap();
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

pub async fn an_absurd_position_cannot_lock_out_those_who_heard_it(home: &Home) {
    for heard in [(1 << 53) + 1, i64::MAX as u64, u64::MAX] {
        let before = home.store.identity();
        let after = home.store.declare_restored(StorePosition(heard), NOW).await.unwrap();
        assert!(after.incarnation > before.incarnation);
        assert!(home.store.position().position.0 < 1 << 54, "what was claimed is bounded, so counters never run out");
    }
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
    let due = restored.due(&name("a"), running.generation, JOURNAL, 10, RESEND, NOW).await.unwrap();
    assert_eq!(kinds(&due), (vec![], vec![]));
    restored.close().await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&copy.join("paprika.db").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

pub async fn revocations_outlive_a_restored_backup(home: &Home) {
    let running = home.in_phase("a", Phase::Running).await;
    let token = NewToken { id: "t1".into(), hash: [1; 32], name: "ci".into(), scope: Scope::Run, expires_at: None };
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
