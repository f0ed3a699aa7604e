//! Tokens of operators.

use store::StoreError;
use store::types::{NewToken, Scope};

use crate::world::{HOUR, Home, NOW, admin};

fn token(id: &str) -> NewToken {
    NewToken {
        id: id.into(),
        hash: [5; 32],
        name: "ci".into(),
        scope: Scope::Run,
        roles: vec!["deploy".into(), "look".into()],
        expires_at: Some(NOW + HOUR),
    }
}

pub async fn a_token_lives_from_creation_to_revocation(home: &Home) {
    let made = home.store.token_create(token("t1"), &admin(), NOW).await.unwrap();
    let (found, hash) = home.store.token_by_id("t1").await.unwrap().unwrap();
    assert_eq!((&found, hash), (&made, [5; 32]));
    assert!(matches!(home.store.token_create(token("t1"), &admin(), NOW).await, Err(StoreError::Conflict { .. })));
    for bad in ["", "two words", &"x".repeat(129)] {
        assert!(home.store.token_create(token(bad), &admin(), NOW).await.is_err());
    }
    assert_eq!(home.store.token_by_id("t2").await.unwrap(), None);
    home.store.token_revoke("t1", &admin(), NOW + 1).await.unwrap();
    home.store.token_revoke("t1", &admin(), NOW + 2).await.unwrap();
    let tokens = home.store.tokens().await.unwrap();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].revoked_at, Some(NOW + 1));
    assert!(matches!(home.store.token_revoke("t2", &admin(), NOW).await, Err(StoreError::NotFound { .. })));
}

pub async fn uses_are_written_in_the_end(home: &Home) {
    home.store.token_create(token("t1"), &admin(), NOW).await.unwrap();
    home.store.token_used("t1", NOW + 5);
    home.store.token_used("t1", NOW + 9);
    home.store.token_used("t1", NOW + 7);
    home.store.token_used("unknown", NOW);
    let store = home.reopened().await;
    let (found, _) = store.token_by_id("t1").await.unwrap().unwrap();
    assert_eq!(found.last_used_at, Some(NOW + 9));
    store.close().await;
}
