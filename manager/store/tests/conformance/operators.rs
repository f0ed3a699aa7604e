//! Certificates of operators.

use std::time::Duration;

use common::id::{Generation, StorePosition};
use store::types::Retention;
use store::{Store, StoreError};

use crate::world::{HOUR, Home, NOW, admin, name};

pub async fn a_certificate_lives_from_creation_to_revocation(home: &Home) {
    let alice = name("alice");
    let first = home.store.operator_cert_create(&alice, NOW + HOUR, &admin(), NOW).await.unwrap();
    let second = home.store.operator_cert_create(&alice, NOW + 2 * HOUR, &admin(), NOW + 1).await.unwrap();
    let bob = home.store.operator_cert_create(&name("bob"), NOW + HOUR, &admin(), NOW + 2).await.unwrap();
    assert!(first < second && second < bob);
    let found = home.store.operator_cert(second).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.not_after, found.created_at), ("alice", NOW + 2 * HOUR, NOW + 1));
    assert_eq!((found.created_by, found.revoked_at), (admin(), None));
    for unknown in [Generation(0), Generation(bob.0 + 1), Generation(u64::MAX)] {
        assert_eq!(home.store.operator_cert(unknown).await.unwrap(), None);
    }
    assert_eq!(home.store.operator_revoke(&alice, &admin(), NOW + 3).await.unwrap(), [first, second]);
    assert_eq!(home.store.operator_revoke(&alice, &admin(), NOW + 4).await.unwrap(), []);
    let nobody = home.store.operator_revoke(&name("carol"), &admin(), NOW).await;
    assert!(matches!(nobody, Err(StoreError::NotFound { .. })));
    let all = home.store.operator_certs().await.unwrap();
    let revoked: Vec<_> = all.iter().map(|cert| (cert.generation, cert.revoked_at)).collect();
    assert_eq!(revoked, [(bob, None), (second, Some(NOW + 3)), (first, Some(NOW + 3))]);
    // A certificate that is made later is another one.
    let third = home.store.operator_cert_create(&alice, NOW + HOUR, &admin(), NOW + 5).await.unwrap();
    assert_eq!(home.store.operator_cert(third).await.unwrap().unwrap().revoked_at, None);
    assert_eq!(home.store.operator_revoke(&alice, &admin(), NOW + 6).await.unwrap(), [third]);
    let rows = home.store.audit_rows(0, 100).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.action == "operator.certificate").count(), 4);
    assert_eq!(rows.iter().filter(|row| row.action == "operator.revoke").count(), 2);
}

pub async fn revoked_operators_stay_so_in_a_restored_backup(home: &Home) {
    let alice = home.store.operator_cert_create(&name("alice"), NOW + HOUR, &admin(), NOW).await.unwrap();
    let bob = home.store.operator_cert_create(&name("bob"), NOW + HOUR, &admin(), NOW).await.unwrap();
    let copy = home.folder().join("copy");
    home.store.backup(&copy).await.unwrap();
    home.store.operator_revoke(&name("alice"), &admin(), NOW).await.unwrap();
    let text = std::fs::read_to_string(home.folder().join("revocations")).unwrap();
    assert_eq!(text, format!("operator {alice}\n"));
    home.store.close().await;
    for file in ["paprika.db", "output.db"] {
        std::fs::copy(copy.join(file), home.folder().join(file)).unwrap();
    }
    let restored = Store::open(home.folder()).await.unwrap();
    assert!(restored.operator_cert(alice).await.unwrap().unwrap().revoked_at.is_some());
    assert_eq!(restored.operator_cert(bob).await.unwrap().unwrap().revoked_at, None);
    // What the copy gives out now, nobody has.
    restored.declare_restored(&name("a"), StorePosition(0), NOW).await.unwrap();
    let next = restored.operator_cert_create(&name("carol"), NOW + HOUR, &admin(), NOW).await.unwrap();
    assert!(next.0 > bob.0 + 1_000_000);
    restored.close().await;
}

pub async fn certificates_that_expired_long_ago_go_and_their_numbers_never_return(home: &Home) {
    const KEPT: u64 = 30 * 24 * HOUR;
    let only = home.store.operator_cert_create(&name("alice"), NOW + HOUR, &admin(), NOW).await.unwrap();
    home.store.operator_revoke(&name("alice"), &admin(), NOW).await.unwrap();
    let year = Duration::from_secs(365 * 24 * 3600);
    let retention = Retention { commands: year, events: year, audit: None };
    assert_eq!(home.store.prune(retention, NOW + HOUR + KEPT).await.unwrap().operators, 0);
    assert_eq!(home.store.prune(retention, NOW + HOUR + KEPT + 1).await.unwrap().operators, 1);
    assert_eq!(home.store.operator_certs().await.unwrap(), []);
    let next = home.store.operator_cert_create(&name("alice"), NOW + HOUR, &admin(), NOW).await.unwrap();
    assert!(next > only);
}
