//! Join tokens, and the agents that come with them.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use common::id::StorePosition;
use store::types::{
    EventFilter, JoinClaim, JoinOutcome, JoinRefused, JoinTokenRow, Millis, NewJoinToken, NotAdmitted, Retention,
};
use store::{Store, StoreError};

use crate::world::{HOUR, Home, NOW, admin, connect, name};

const SECRET: [u8; 32] = [42; 32];
/// Names the folder to the child that is to be killed.
const CHILD_FOLDER: &str = "STORE_JOIN_FOLDER";

/// A token of one use and one hour.
pub fn token(id: &str) -> NewJoinToken {
    NewJoinToken {
        id: id.to_owned(),
        hash: SECRET,
        expires_at: NOW + HOUR,
        uses: 1,
        name_pattern: Some("web*".to_owned()),
        groups: vec!["web".to_owned()],
        cidrs: vec!["192.0.2.0/24".to_owned()],
    }
}

pub fn claim(token: &str, key: u8, agent: &str) -> JoinClaim {
    JoinClaim {
        token_id: token.to_owned(),
        secret_hash: SECRET,
        spki: [key; 32],
        name: name(agent),
        address: "192.0.2.7".to_owned(),
        issuer: 1,
        not_after: NOW + 72 * HOUR,
        now: NOW,
    }
}

/// Whatever the token says.
pub fn groups(token: &JoinTokenRow) -> Result<Vec<String>, NotAdmitted> {
    Ok(token.groups.clone())
}

async fn join(store: &Store, claim: JoinClaim) -> Result<JoinOutcome, JoinRefused> {
    store.join(claim, groups).await.unwrap()
}

async fn used(store: &Store) -> u32 {
    store.join_tokens().await.unwrap().iter().map(|token| token.used).sum()
}

/// Outcomes of what the audit says of joins.
async fn told(store: &Store) -> Vec<(String, String)> {
    let rows = store.audit_rows(0, 10_000).await.unwrap();
    rows.into_iter().filter(|row| row.action == "agent.join").map(|row| (row.object, row.outcome)).collect()
}

pub async fn a_join_token_lives_from_creation_to_revocation(home: &Home) {
    let made = home.store.join_token_create(token("j1"), &admin(), NOW).await.unwrap();
    assert_eq!((made.uses, made.used, made.revoked_at), (1, 0, None));
    assert_eq!(home.store.join_tokens().await.unwrap(), [made]);
    let again = home.store.join_token_create(token("j1"), &admin(), NOW).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })));
    for bad in ["", "two words", "line\nbreak", &"x".repeat(129)] {
        assert!(home.store.join_token_create(token(bad), &admin(), NOW).await.is_err(), "{bad}");
    }
    for (useless, field) in [
        (NewJoinToken { uses: 0, ..token("j2") }, "uses"),
        (NewJoinToken { expires_at: NOW, ..token("j2") }, "expiry"),
        (NewJoinToken { expires_at: u64::MAX, ..token("j2") }, "expiry"),
    ] {
        let refused = home.store.join_token_create(useless, &admin(), NOW).await;
        assert!(matches!(refused, Err(StoreError::OutOfRange { field: found }) if found == field));
    }
    home.store.join_token_revoke("j1", &admin(), NOW + 1).await.unwrap();
    home.store.join_token_revoke("j1", &admin(), NOW + 2).await.unwrap();
    assert_eq!(home.store.join_tokens().await.unwrap()[0].revoked_at, Some(NOW + 1));
    assert!(matches!(home.store.join_token_revoke("j2", &admin(), NOW).await, Err(StoreError::NotFound { .. })));
    let rows = home.store.audit_rows(0, 10).await.unwrap();
    let actions: Vec<&str> = rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["join_token.create", "join_token.revoke"]);
}

pub async fn a_join_makes_the_agent_with_its_groups_and_its_key(home: &Home) {
    home.store.join_token_create(token("j1"), &admin(), NOW).await.unwrap();
    let joined = join(&home.store, claim("j1", 1, "web1")).await.unwrap();
    assert_eq!(
        (joined.agent.as_str(), joined.repeated, joined.groups.as_slice()),
        ("web1", false, &["web".to_owned()][..])
    );
    let agent = home.store.agent(&name("web1")).await.unwrap().unwrap();
    assert_eq!((agent.generation, &agent.groups), (joined.generation, &joined.groups));
    assert_eq!(agent.join_token.as_deref(), Some("j1"));
    let keys = home.store.agent_keys(joined.generation).await.unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!((keys[0].spki, keys[0].issuer, keys[0].not_after), ([1; 32], Some(1), Some(NOW + 72 * HOUR)));
    assert_eq!(keys[0].first_used_at, None);
    assert_eq!(used(&home.store).await, 1);
    let events =
        home.store.events(0, 10, EventFilter { agent: Some(name("web1")), ..Default::default() }).await.unwrap();
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["agent.created"]);
    let rows = home.store.audit_rows(0, 10).await.unwrap();
    let row = rows.last().unwrap();
    assert_eq!((row.actor.0.as_str(), row.action.as_str(), row.outcome.as_str()), ("join:j1", "agent.join", "done"));
    assert!(row.details.contains(r#""address":"192.0.2.7""#) && row.details.contains(&"01".repeat(32)));
    // An agent that an operator makes has none.
    let (made, _) = home.store.ensure_agent(&name("db1"), &admin(), NOW).await.unwrap();
    assert_eq!((made.groups, made.join_token), (Vec::<String>::new(), None));
    assert_eq!(home.store.agent_keys(made.generation).await.unwrap(), []);
}

/// Each refusal, and that it leaves nothing but its row in the audit.
pub async fn every_refusal_says_why_and_uses_nothing_up(home: &Home) {
    for id in ["good", "late", "spent", "back"] {
        let uses = if id == "good" { 5 } else { 1 };
        home.store.join_token_create(NewJoinToken { uses, ..token(id) }, &admin(), NOW).await.unwrap();
    }
    join(&home.store, claim("spent", 9, "first")).await.unwrap();
    home.store.join_token_revoke("back", &admin(), NOW).await.unwrap();
    let before = home.store.position().last_event;
    let wrong = JoinClaim { secret_hash: [41; 32], ..claim("good", 1, "web1") };
    for stranger in [claim("none", 1, "web1"), wrong] {
        let position = home.store.position();
        assert_eq!(join(&home.store, stranger).await, Err(JoinRefused::Unknown));
        assert_eq!(home.store.position(), position, "who does not know the secret writes nothing");
    }
    let late = JoinClaim { now: NOW + HOUR, ..claim("late", 1, "web1") };
    for (claim, refused) in [
        (late.clone(), JoinRefused::Expired),
        (claim("spent", 1, "web1"), JoinRefused::Used),
        (claim("back", 1, "web1"), JoinRefused::Revoked),
        (claim("good", 1, "first"), JoinRefused::Taken),
    ] {
        assert_eq!(join(&home.store, claim).await, Err(refused));
    }
    for (not, refused) in [
        (NotAdmitted::name("the group db is missing in the token"), JoinRefused::Name),
        (NotAdmitted::address("not from there"), JoinRefused::Address),
    ] {
        let answer = home.store.join(claim("good", 1, "web1"), move |_| Err(not)).await.unwrap();
        assert_eq!(answer, Err(refused));
    }
    assert_eq!((used(&home.store).await, home.store.agent_count().await.unwrap()), (1, 1));
    assert_eq!(home.store.position().last_event, before);
    let told = told(&home.store).await;
    assert_eq!(told.iter().filter(|(_, outcome)| outcome == "refused").count(), 6);
    let rows = home.store.audit_rows(0, 100).await.unwrap();
    assert!(rows.iter().any(|row| row.outcome == "refused" && row.details.contains("the group db is missing")));
    // A moment earlier it would have been right.
    join(&home.store, JoinClaim { now: NOW + HOUR - 1, ..late }).await.unwrap();
    assert!(join(&home.store, claim("good", 1, "web2")).await.is_ok());
}

pub async fn the_same_key_gets_the_same_answer_for_an_hour(home: &Home) {
    let life = NOW + 2 * HOUR;
    home.store
        .join_token_create(NewJoinToken { expires_at: NOW + 60_000, ..token("j1") }, &admin(), NOW)
        .await
        .unwrap();
    let first = join(&home.store, claim("j1", 1, "web1")).await.unwrap();
    let at = |now: Millis| JoinClaim { now, issuer: 2, not_after: life, ..claim("j1", 1, "web1") };
    // Used up, and then also expired.
    for now in [NOW, NOW + 60_000, NOW + HOUR - 1] {
        let again = join(&home.store, at(now)).await.unwrap();
        assert_eq!((again.generation, again.repeated), (first.generation, true));
    }
    let keys = home.store.agent_keys(first.generation).await.unwrap();
    assert_eq!((keys.len(), keys[0].issuer, keys[0].not_after), (1, Some(2), Some(life)));
    assert_eq!(join(&home.store, at(NOW + HOUR)).await, Err(JoinRefused::Expired));
    // Another key, another name, another secret.
    let other = JoinClaim { now: NOW, ..claim("j1", 2, "web1") };
    assert_eq!(join(&home.store, other).await, Err(JoinRefused::Used));
    assert_eq!(join(&home.store, claim("j1", 1, "web2")).await, Err(JoinRefused::Name));
    let guess = JoinClaim { secret_hash: [0; 32], ..at(NOW) };
    assert_eq!(join(&home.store, guess).await, Err(JoinRefused::Unknown));
    assert_eq!(used(&home.store).await, 1);
    // Who took the token back means it.
    home.store.join_token_revoke("j1", &admin(), NOW).await.unwrap();
    assert_eq!(join(&home.store, at(NOW)).await, Err(JoinRefused::Revoked));
}

pub async fn a_repeat_is_no_way_back_for_whoever_was_removed_or_replaced(home: &Home) {
    home.store.join_token_create(NewJoinToken { uses: 3, ..token("j1") }, &admin(), NOW).await.unwrap();
    let first = join(&home.store, claim("j1", 1, "web1")).await.unwrap();
    home.store.remove_agent(&name("web1"), &admin(), NOW).await.unwrap();
    assert_eq!(home.store.agent_keys(first.generation).await.unwrap(), []);
    // It is a new agent that takes a new use, or none.
    let second = join(&home.store, claim("j1", 1, "web1")).await.unwrap();
    assert!(!second.repeated && second.generation > first.generation);
    assert_eq!(used(&home.store).await, 2);
    // The host went on to another key: the first one is not the agent's any more.
    let renewed = store::types::NewAgentKey {
        agent: name("web1"),
        generation: second.generation,
        spki: [2; 32],
        issuer: 1,
        not_after: NOW + HOUR,
        reason: store::types::KeyReason::Renewed { by: [1; 32] },
    };
    home.store.agent_key_add(renewed, &admin(), NOW).await.unwrap();
    home.store.key_seen(second.generation, [2; 32], NOW).await.unwrap();
    assert_eq!(join(&home.store, claim("j1", 1, "web1")).await, Err(JoinRefused::Taken));
    assert_eq!(used(&home.store).await, 2);
}

pub async fn a_repeat_is_judged_like_the_first_time(home: &Home) {
    home.store.join_token_create(token("j1"), &admin(), NOW).await.unwrap();
    let first = join(&home.store, claim("j1", 1, "web1")).await.unwrap();
    let not = NotAdmitted::address("not from there any more");
    let refused = home.store.join(claim("j1", 1, "web1"), move |_| Err(not)).await.unwrap();
    assert_eq!(refused, Err(JoinRefused::Address));
    let later = JoinClaim { issuer: 2, ..claim("j1", 1, "web1") };
    home.store.quarantine(&name("web1"), "two hosts", NOW).await.unwrap();
    assert!(matches!(home.store.join(later.clone(), groups).await, Err(StoreError::Quarantined { .. })));
    assert_eq!(home.store.agent_keys(first.generation).await.unwrap()[0].issuer, Some(1), "nothing was issued");
    home.store.accept_agent(&name("web1"), &admin(), NOW).await.unwrap();
    assert!(join(&home.store, later).await.unwrap().repeated);
}

pub async fn a_dead_token_leaves_a_few_rows_a_minute_and_the_rest_is_counted(home: &Home) {
    for id in ["dead", "other"] {
        home.store.join_token_create(token(id), &admin(), NOW).await.unwrap();
        home.store.join_token_revoke(id, &admin(), NOW).await.unwrap();
    }
    let tried = async |id: &str, now: Millis| {
        let refused = join(&home.store, JoinClaim { now, ..claim(id, 1, "web1") }).await;
        assert_eq!(refused, Err(JoinRefused::Revoked));
    };
    for _ in 0..500 {
        tried("dead", NOW).await;
    }
    assert_eq!(told(&home.store).await.len(), 10);
    tried("other", NOW).await;
    assert_eq!(told(&home.store).await.len(), 11, "each token has its own share");
    tried("dead", NOW + 59_999).await;
    assert_eq!(told(&home.store).await.len(), 11);
    tried("dead", NOW + 60_000).await;
    let rows = home.store.audit_rows(0, 100).await.unwrap();
    assert!(rows.last().unwrap().details.contains(r#""not_written_before":491"#), "{rows:?}");
}

/// 64 hosts with 64 keys and one use: one of them joins, in every round.
pub async fn a_use_that_many_race_for_is_given_once(home: &Home) {
    for round in 0..200 {
        let id = format!("j{round}");
        home.store.join_token_create(token(&id), &admin(), NOW).await.unwrap();
        let racers: Vec<_> = (0..64)
            .map(|racer| {
                // Half of them race for the same name.
                let agent = if racer % 2 == 0 { format!("r{round}") } else { format!("r{round}-{racer}") };
                let (store, claim) = (home.store.clone(), claim(&id, racer, &agent));
                tokio::spawn(async move { join(&store, claim).await })
            })
            .collect();
        let mut winners = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(joined) => winners += usize::from(!joined.repeated),
                Err(refused) => assert_eq!(refused, JoinRefused::Used),
            }
        }
        assert_eq!(winners, 1, "round {round}");
    }
    assert_eq!(home.store.agent_count().await.unwrap(), 200);
    assert_eq!(used(&home.store).await, 200);
    let generations: std::collections::BTreeSet<u64> =
        home.store.agents(None, 1000).await.unwrap().iter().map(|agent| agent.generation.0).collect();
    assert_eq!(generations.len(), 200);
    home.store.verify_audit().await.unwrap();
}

pub async fn a_token_of_many_uses_lets_in_exactly_as_many(home: &Home) {
    home.store.join_token_create(NewJoinToken { uses: 20, ..token("j1") }, &admin(), NOW).await.unwrap();
    let racers: Vec<_> = (0..50)
        .map(|racer| {
            let (store, claim) = (home.store.clone(), claim("j1", racer, &format!("host{racer}")));
            tokio::spawn(async move { join(&store, claim).await })
        })
        .collect();
    let mut joined = 0;
    for racer in racers {
        joined += u64::from(racer.await.unwrap().is_ok());
    }
    assert_eq!((joined, used(&home.store).await), (20, 20));
    assert_eq!(home.store.agent_count().await.unwrap(), 20);
}

/// Kills a child before and after the commit of a join. Before: nothing happened. After: the use is gone, the host had no
/// answer, and the same key gets its answer where another one does not.
pub async fn who_joined_when_the_manager_died_may_ask_again(home: &Home) {
    home.store.join_token_create(token("j1"), &admin(), NOW).await.unwrap();
    home.store.close().await;
    for (point, consumed) in [("manager.commit.before", 0), ("manager.commit.after", 1)] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "joins::child", "--nocapture"])
            .env(CHILD_FOLDER, home.folder())
            .env("PAPRIKA_CRASH_POINT", point)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(9), "{point}");
        let answers = BufReader::new(&output.stdout[..]).lines().map_while(Result::ok);
        assert_eq!(answers.filter(|line| line.starts_with("joined")).count(), 0, "{point}");
        let store = Store::open(home.folder()).await.unwrap();
        assert_eq!(used(&store).await, consumed, "{point}");
        assert_eq!(store.agent_count().await.unwrap(), u64::from(consumed));
        assert_eq!(told(&store).await.len(), consumed as usize);
        if consumed == 1 {
            assert_eq!(join(&store, claim("j1", 2, "web1")).await, Err(JoinRefused::Used));
            let again = join(&store, claim("j1", 1, "web1")).await.unwrap();
            assert!(again.repeated);
            let agent = store.agent(&name("web1")).await.unwrap().unwrap();
            assert_eq!(agent.generation, again.generation);
            store
                .agent_connected(
                    store::types::Connect { spki: Some([1; 32]), ..connect("web1", again.generation) },
                    NOW,
                )
                .await
                .unwrap();
        }
        store.close().await;
    }
}

/// The child: joins once, and is killed on the way. Does nothing when nobody asked for it.
#[tokio::test]
async fn child() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let store = Store::open(folder.as_ref()).await.unwrap();
    let joined = join(&store, claim("j1", 1, "web1")).await.unwrap();
    let mut out = std::io::stdout();
    std::io::Write::write_all(&mut out, format!("joined {}\n", joined.generation).as_bytes()).unwrap();
    std::io::Write::flush(&mut out).unwrap();
}

pub async fn a_restored_store_voids_join_tokens(home: &Home) {
    for id in ["j1", "j2"] {
        home.store.join_token_create(NewJoinToken { uses: 2, ..token(id) }, &admin(), NOW).await.unwrap();
    }
    join(&home.store, claim("j1", 1, "web1")).await.unwrap();
    home.store.declare_restored(&name("web1"), StorePosition(1000), NOW).await.unwrap();
    for (id, key) in [("j1", 1), ("j1", 2), ("j2", 3)] {
        assert_eq!(join(&home.store, claim(id, key, "web2")).await, Err(JoinRefused::Revoked));
    }
    let rows = home.store.audit_rows(0, 100).await.unwrap();
    let restored = rows.iter().find(|row| row.action == "store.restored").unwrap();
    let details: serde_json::Value = serde_json::from_str(&restored.details).unwrap();
    assert_eq!(details["join_tokens"].as_u64(), Some(2));
    // New ones work, and their agents have generations that no earlier life can have given out.
    home.store.join_token_create(token("j3"), &admin(), NOW).await.unwrap();
    assert!(join(&home.store, claim("j3", 4, "web3")).await.unwrap().generation.0 > 1_000_000);
}

pub async fn a_revoked_join_token_stays_so_in_a_restored_backup(home: &Home) {
    home.store.join_token_create(token("j1"), &admin(), NOW).await.unwrap();
    home.store.join_token_create(token("j2"), &admin(), NOW).await.unwrap();
    let copy = home.folder().join("copy");
    home.store.backup(&copy).await.unwrap();
    home.store.join_token_revoke("j1", &admin(), NOW).await.unwrap();
    home.store.close().await;
    for file in ["paprika.db", "output.db"] {
        std::fs::copy(copy.join(file), home.folder().join(file)).unwrap();
    }
    let restored = Store::open(home.folder()).await.unwrap();
    assert_eq!(join(&restored, claim("j1", 1, "web1")).await, Err(JoinRefused::Revoked));
    assert!(join(&restored, claim("j2", 1, "web1")).await.is_ok());
    restored.close().await;
}

pub async fn join_tokens_that_ended_long_ago_go(home: &Home) {
    const KEPT: Millis = 30 * 24 * HOUR;
    home.store.join_token_create(token("old"), &admin(), NOW).await.unwrap();
    home.store
        .join_token_create(NewJoinToken { expires_at: NOW + 2 * HOUR, ..token("young") }, &admin(), NOW)
        .await
        .unwrap();
    let joined = join(&home.store, claim("old", 1, "web1")).await.unwrap();
    let month = std::time::Duration::from_secs(365 * 24 * 3600);
    let retention = Retention { commands: month, events: month, audit: None };
    assert_eq!(home.store.prune(retention, NOW + HOUR + KEPT).await.unwrap().join_tokens, 0);
    assert_eq!(home.store.prune(retention, NOW + HOUR + KEPT + 1).await.unwrap().join_tokens, 1);
    let left: Vec<String> = home.store.join_tokens().await.unwrap().into_iter().map(|token| token.id).collect();
    assert_eq!(left, ["young"]);
    // The agent is as it was.
    let agent = home.store.agent(&name("web1")).await.unwrap().unwrap();
    assert_eq!((agent.generation, agent.join_token.as_deref()), (joined.generation, Some("old")));
    home.store.join_token_revoke("young", &admin(), NOW).await.unwrap();
    assert_eq!(home.store.prune(retention, NOW + KEPT + 1).await.unwrap().join_tokens, 1);
}
