//! Keys that agents may show.

use common::id::Generation;
use store::types::{Connect, KeyReason, NewAgentKey};
use store::{Store, StoreError};

use crate::joins::{claim, groups, token};
use crate::world::{HOUR, Home, NOW, admin, connect, name};

fn with(key: u8, generation: Generation) -> Connect {
    Connect { spki: Some([key; 32]), ..connect("web1", generation) }
}

fn new(key: u8, generation: Generation, reason: KeyReason) -> NewAgentKey {
    NewAgentKey { agent: name("web1"), generation, spki: [key; 32], issuer: 1, not_after: NOW + HOUR, reason }
}

fn renewed(key: u8, generation: Generation, by: u8) -> NewAgentKey {
    new(key, generation, KeyReason::Renewed { by: [by; 32] })
}

/// The first bytes of the keys of an agent, oldest first.
async fn keys(store: &Store, generation: Generation) -> Vec<u8> {
    store.agent_keys(generation).await.unwrap().iter().map(|key| key.spki[0]).collect()
}

/// An agent that joined with the key 1.
async fn joined(home: &Home) -> Generation {
    home.store.join_token_create(token("j1"), &admin(), NOW).await.unwrap();
    home.store.join(claim("j1", 1, "web1"), groups).await.unwrap().unwrap().generation
}

pub async fn only_keys_of_the_agent_may_come(home: &Home) {
    let generation = joined(home).await;
    let stolen = home.store.agent_connected(with(2, generation), NOW).await;
    assert!(matches!(stolen, Err(StoreError::Fenced(_))));
    home.store.agent_connected(with(1, generation), NOW + 5).await.unwrap();
    home.store.agent_connected(with(1, generation), NOW + 9).await.unwrap();
    assert_eq!(home.store.agent_keys(generation).await.unwrap()[0].first_used_at, Some(NOW + 5));
    assert!(matches!(home.store.agent_connected(with(2, generation), NOW).await, Err(StoreError::Fenced(_))));
}

pub async fn the_first_key_of_an_agent_without_any_is_bound(home: &Home) {
    let (agent, _) = home.store.ensure_agent(&name("web1"), &admin(), NOW).await.unwrap();
    home.store.agent_connected(with(7, agent.generation), NOW).await.unwrap();
    let bound = home.store.agent_keys(agent.generation).await.unwrap();
    assert_eq!((bound.len(), bound[0].spki, bound[0].issuer, bound[0].not_after), (1, [7; 32], None, None));
    assert!(matches!(home.store.agent_connected(with(8, agent.generation), NOW).await, Err(StoreError::Fenced(_))));
    let rows = home.store.audit_rows(0, 10).await.unwrap();
    assert_eq!(rows.last().unwrap().action, "agent.key_bound");
    // What is refused for another reason binds nothing.
    let (other, _) = home.store.ensure_agent(&name("web2"), &admin(), NOW).await.unwrap();
    home.store.quarantine(&name("web2"), "two hosts", NOW).await.unwrap();
    let shown = Connect { spki: Some([9; 32]), ..connect("web2", other.generation) };
    assert!(matches!(home.store.agent_connected(shown, NOW).await, Err(StoreError::Quarantined { .. })));
    assert_eq!(home.store.agent_keys(other.generation).await.unwrap(), []);
}

pub async fn a_newer_key_takes_over_when_it_is_shown(home: &Home) {
    let generation = joined(home).await;
    home.store.agent_connected(with(1, generation), NOW).await.unwrap();
    home.store.agent_key_add(renewed(2, generation, 1), &admin(), NOW).await.unwrap();
    assert_eq!(keys(&home.store, generation).await, [1, 2]);
    // The answer was lost: the one in use still comes.
    home.store.agent_connected(with(1, generation), NOW).await.unwrap();
    assert_eq!(keys(&home.store, generation).await, [1, 2]);
    home.store.agent_connected(with(2, generation), NOW).await.unwrap();
    assert_eq!(keys(&home.store, generation).await, [2]);
    // A copy of the disk from before is out.
    assert!(matches!(home.store.agent_connected(with(1, generation), NOW).await, Err(StoreError::Fenced(_))));
    let late = home.store.agent_key_add(renewed(3, generation, 1), &admin(), NOW).await;
    assert!(matches!(late, Err(StoreError::Fenced(_))));
    assert_eq!(keys(&home.store, generation).await, [2]);
}

pub async fn answers_that_get_lost_never_cost_the_key_in_use(home: &Home) {
    let generation = joined(home).await;
    home.store.agent_connected(with(1, generation), NOW).await.unwrap();
    for key in 2..10 {
        home.store.agent_key_add(renewed(key, generation, 1), &admin(), NOW).await.unwrap();
        assert_eq!(keys(&home.store, generation).await, [1, key]);
    }
    // An operator's certificate leaves it as well.
    home.store.agent_key_add(new(20, generation, KeyReason::Issued), &admin(), NOW).await.unwrap();
    assert_eq!(keys(&home.store, generation).await, [1, 20]);
    home.store.key_seen(generation, [20; 32], NOW).await.unwrap();
    home.store.key_seen(generation, [99; 32], NOW).await.unwrap();
    assert_eq!(keys(&home.store, generation).await, [20]);
    // The same key once more is the same key, and still in use.
    home.store.agent_key_add(renewed(20, generation, 20), &admin(), NOW + 1).await.unwrap();
    let again = home.store.agent_keys(generation).await.unwrap();
    assert_eq!((again.len(), again[0].first_used_at, again[0].issued_at), (1, Some(NOW), NOW + 1));
}

pub async fn a_key_is_added_for_the_present_bearer_alone(home: &Home) {
    let generation = joined(home).await;
    let older = Generation(generation.0 + 1);
    let fenced = home.store.agent_key_add(new(2, older, KeyReason::Issued), &admin(), NOW).await;
    assert!(matches!(fenced, Err(StoreError::Fenced(_))));
    let nobody = NewAgentKey { agent: name("nobody"), ..new(2, generation, KeyReason::Issued) };
    assert!(matches!(home.store.agent_key_add(nobody, &admin(), NOW).await, Err(StoreError::NotFound { .. })));
    let stranger = home.store.agent_key_add(renewed(2, generation, 66), &admin(), NOW).await;
    assert!(matches!(stranger, Err(StoreError::Fenced(_))));
    assert_eq!(keys(&home.store, generation).await, [1]);
    // While two hosts have the name, neither gets another certificate by itself; an operator may give one to the right one.
    home.store.quarantine(&name("web1"), "two hosts", NOW).await.unwrap();
    for reason in [KeyReason::Renewed { by: [1; 32] }, KeyReason::Recovered { by: [1; 32] }] {
        let refused = home.store.agent_key_add(new(2, generation, reason), &admin(), NOW).await;
        assert!(matches!(refused, Err(StoreError::Quarantined { .. })));
    }
    home.store.agent_key_add(new(3, generation, KeyReason::Issued), &admin(), NOW).await.unwrap();
    assert_eq!(keys(&home.store, generation).await, [1, 3]);
}

pub async fn every_certificate_is_in_the_audit(home: &Home) {
    let generation = joined(home).await;
    let before = home.store.audit_rows(0, 100).await.unwrap().len();
    for reason in [KeyReason::Renewed { by: [1; 32] }, KeyReason::Recovered { by: [1; 32] }, KeyReason::Issued] {
        home.store.agent_key_add(new(2, generation, reason), &admin(), NOW).await.unwrap();
    }
    let rows = home.store.audit_rows(0, 100).await.unwrap();
    let actions: Vec<&str> = rows[before..].iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["agent.renew", "agent.recover", "agent.certificate"]);
    let details: serde_json::Value = serde_json::from_str(&rows.last().unwrap().details).unwrap();
    assert_eq!((details["issuer"].as_u64(), details["not_after"].as_u64()), (Some(1), Some(NOW + HOUR)));
    home.store.verify_audit().await.unwrap();
}

pub async fn agents_of_another_authority_are_counted(home: &Home) {
    let generation = joined(home).await;
    home.connected("old").await;
    assert_eq!(home.store.agents_without_issuer(1).await.unwrap(), 2);
    home.store.agent_connected(with(1, generation), NOW).await.unwrap();
    assert_eq!(home.store.agents_without_issuer(1).await.unwrap(), 1);
    assert_eq!(home.store.agents_without_issuer(2).await.unwrap(), 2);
    // A certificate that was not shown may never have arrived.
    let next = NewAgentKey { issuer: 2, ..renewed(2, generation, 1) };
    home.store.agent_key_add(next, &admin(), NOW).await.unwrap();
    assert_eq!(home.store.agents_without_issuer(2).await.unwrap(), 2);
    home.store.agent_connected(with(2, generation), NOW).await.unwrap();
    assert_eq!(home.store.agents_without_issuer(2).await.unwrap(), 1);
    home.store.remove_agent(&name("old"), &admin(), NOW).await.unwrap();
    assert_eq!(home.store.agents_without_issuer(2).await.unwrap(), 0);
}

pub async fn keys_survive_a_backup(home: &Home) {
    let generation = joined(home).await;
    let copy = home.folder().join("copy");
    home.store.backup(&copy).await.unwrap();
    let restored = Store::open(&copy).await.unwrap();
    assert_eq!(restored.agent_keys(generation).await.unwrap(), home.store.agent_keys(generation).await.unwrap());
    assert!(matches!(restored.agent_connected(with(2, generation), NOW).await, Err(StoreError::Fenced(_))));
    restored.agent_connected(with(1, generation), NOW).await.unwrap();
    restored.close().await;
}
