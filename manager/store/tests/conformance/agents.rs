//! Agents and their sessions.

use common::id::{Epoch, Generation};
use common::model::{Outcome, Phase};
use store::StoreError;

use crate::world::{Home, NOW, admin, connect, ended, name};

pub async fn a_name_is_made_once_and_found_again(home: &Home) {
    let (made, new) = home.store.ensure_agent(&name("web1"), &admin(), NOW).await.unwrap();
    assert!(new);
    assert_eq!((made.epoch, made.connected_at, made.drained), (Epoch(0), None, false));
    let (again, new) = home.store.ensure_agent(&name("web1"), &admin(), NOW + 5).await.unwrap();
    assert!(!new);
    assert_eq!(again, made);
    assert_eq!(home.store.agent(&name("web1")).await.unwrap(), Some(made));
    assert_eq!(home.store.agent(&name("web2")).await.unwrap(), None);
    assert_eq!(home.store.agent_count().await.unwrap(), 1);
}

pub async fn lists_go_by_name_and_go_on_behind_a_cursor(home: &Home) {
    for agent in ["c", "a", "d", "b"] {
        home.store.ensure_agent(&name(agent), &admin(), NOW).await.unwrap();
    }
    let first = home.store.agents(None, 3).await.unwrap();
    assert_eq!(first.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let rest = home.store.agents(Some(name("c")), 3).await.unwrap();
    assert_eq!(rest.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["d"]);
}

/// Protocol R-CMD-9.
pub async fn removal_frees_the_name_and_ends_what_was_open(home: &Home) {
    let running = home.in_phase("web1", Phase::Running).await;
    let queued = home.queued("web1").await;
    let done = home.in_phase("web2", Phase::Running).await;
    home.store.result(&done.uid, &name("web2"), ended(Outcome::Succeeded, &[]), NOW).await.unwrap();
    let old = home.store.agent(&name("web1")).await.unwrap().unwrap();

    let gone = home.store.remove_agent(&name("web1"), &admin(), NOW + 1).await.unwrap();
    assert_eq!(gone, [running.id, queued]);
    let running = home.command(running.id).await;
    assert_eq!(running.phase, Phase::Interrupted);
    assert_eq!(running.end.unwrap().error.unwrap().code, "agent_removed");
    assert!(running.streams.iter().all(|stream| stream.end));
    assert_eq!(home.command(queued).await.phase, Phase::Cancelled);
    assert_eq!(home.command(done.id).await.phase, Phase::Succeeded);

    assert_eq!(home.store.agent(&name("web1")).await.unwrap(), None);
    assert!(matches!(home.store.remove_agent(&name("web1"), &admin(), NOW).await, Err(StoreError::NotFound { .. })));
    // The row tells of a bearer that is gone; the next one cannot speak of it.
    let (new, made) = home.store.ensure_agent(&name("web1"), &admin(), NOW + 2).await.unwrap();
    assert!(made && new.generation > old.generation);
    let theirs = home.store.result(&running.uid, &name("web1"), ended(Outcome::Failed, &[]), NOW).await;
    assert!(matches!(theirs, Err(StoreError::NotMine)));
    // Epochs go on over both.
    let epoch = home.store.agent_connected(connect("web1", new.generation), NOW + 3).await.unwrap();
    assert!(epoch > old.epoch);
}

pub async fn quarantine_lasts_until_it_is_lifted(home: &Home) {
    let (generation, _) = home.connected("web1").await;
    home.store.quarantine(&name("web1"), "two hosts: 192.0.2.1 and 192.0.2.2", NOW).await.unwrap();
    home.store.quarantine(&name("web1"), "later", NOW).await.unwrap();
    let refused = home.store.agent_connected(connect("web1", generation), NOW).await;
    assert!(matches!(refused, Err(StoreError::Quarantined { reason, .. }) if reason.contains("192.0.2.2")));
    home.queued("web1").await;
    assert_eq!(home.due("web1", NOW).await, (vec![], vec![]));
    let accepted = home.store.accept_agent(&name("web1"), &admin(), NOW).await.unwrap();
    assert_eq!(accepted.quarantined, None);
    home.store.agent_connected(connect("web1", generation), NOW).await.unwrap();
    assert!(home.store.quarantine(&name("nobody"), "x", NOW).await.is_err());
}

/// Protocol R-SESSION-4.
pub async fn sessions_count_up_and_only_the_newest_ends(home: &Home) {
    let (generation, first) = home.connected("web1").await;
    let second = home.store.agent_connected(connect("web1", generation), NOW + 1).await.unwrap();
    assert_eq!(second, Epoch(first.0 + 1));
    home.store.agent_disconnected(&name("web1"), first, NOW + 2).await.unwrap();
    let agent = home.store.agent(&name("web1")).await.unwrap().unwrap();
    assert_eq!((agent.epoch, agent.connected_at, agent.disconnected_at), (second, Some(NOW + 1), None));
    assert_eq!(agent.labels.get("rack").map(String::as_str), Some("a"));
    assert_eq!(agent.memory_bytes, Some(1 << 30));
    home.store.agent_disconnected(&name("web1"), second, NOW + 3).await.unwrap();
    home.store.agent_disconnected(&name("web1"), second, NOW + 9).await.unwrap();
    let agent = home.store.agent(&name("web1")).await.unwrap().unwrap();
    assert_eq!(agent.disconnected_at, Some(NOW + 3));
}

pub async fn another_generation_is_fenced(home: &Home) {
    let (generation, _) = home.connected("web1").await;
    let other = Generation(generation.0 + 1);
    assert!(matches!(
        home.store.agent_connected(connect("web1", other), NOW).await,
        Err(StoreError::Fenced(agent)) if agent == name("web1")
    ));
    assert!(matches!(
        home.store.agent_connected(connect("nobody", generation), NOW).await,
        Err(StoreError::NotFound { .. })
    ));
}

pub async fn sessions_that_a_crash_left_open_are_ended(home: &Home) {
    home.connected("web1").await;
    let store = home.reopened().await;
    let agent = store.agent(&name("web1")).await.unwrap().unwrap();
    assert!(agent.disconnected_at.is_some());
    store.close().await;
}
