//! Revisions of the site.

use std::sync::Arc;
use std::time::Duration;

use common::id::StorePosition;
use store::types::{NewRevision, Retention, SiteRevision, SiteStatus};
use store::{Store, StoreError};

use crate::world::{Home, NOW, admin, name};

/// A revision with these files, whose hash is made from them.
fn new(files: &[(&str, &str)], status: SiteStatus) -> NewRevision {
    let mut hasher = blake3::Hasher::new();
    for (path, content) in files {
        hasher.update(path.as_bytes()).update(&[0]).update(content.as_bytes()).update(&[0]);
    }
    NewRevision {
        source: "push".to_owned(),
        hash: *hasher.finalize().as_bytes(),
        files: files.iter().map(|(path, content)| ((*path).to_owned(), Arc::from(content.as_bytes()))).collect(),
        status,
        note: None,
        base: None,
    }
}

async fn add(store: &Store, files: &[(&str, &str)], status: SiteStatus) -> SiteRevision {
    store.revision_add(new(files, status), &admin(), NOW).await.unwrap()
}

async fn live(store: &Store) -> Option<u64> {
    store.revision_live().await.unwrap().map(|live| live.number)
}

fn blobs(home: &Home) -> u64 {
    let file = rusqlite::Connection::open(home.folder().join("paprika.db")).unwrap();
    file.query_row("SELECT count(*) FROM site_blobs", [], |row| row.get::<_, i64>(0)).unwrap() as u64
}

pub async fn a_revision_comes_back_as_it_was_added(home: &Home) {
    assert_eq!(live(&home.store).await, None);
    let files = [("agents.yml", "web1: {}\n"), ("files/motd", ""), ("roles.yml", "a: \u{1f336}\n")];
    let pushed = NewRevision { note: Some("first".to_owned()), ..new(&files, SiteStatus::Live) };
    let added = home.store.revision_add(pushed.clone(), &admin(), NOW).await.unwrap();
    assert_eq!((added.files, added.status, added.actor.clone(), added.at), (3, SiteStatus::Live, admin(), NOW));
    assert_eq!((added.source.as_str(), added.note.as_deref(), added.hash), ("push", Some("first"), pushed.hash));
    assert_eq!(home.store.revision_live().await.unwrap(), Some(added.clone()));
    assert_eq!(home.store.revision(added.number).await.unwrap(), Some(added.clone()));
    let tree = home.store.revision_tree(added.number).await.unwrap();
    let expected: Vec<_> =
        files.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())).collect();
    assert_eq!(tree, expected);
    let listed = home.store.revision_files(added.number).await.unwrap();
    assert_eq!(
        listed.iter().map(|file| (file.path.as_str(), file.size)).collect::<Vec<_>>(),
        [("agents.yml", 9), ("files/motd", 0), ("roles.yml", 8)]
    );
    assert_eq!(listed[0].hash, *blake3::hash(files[0].1.as_bytes()).as_bytes());
    let one = home.store.revision_file(added.number, "agents.yml").await.unwrap();
    assert_eq!(one.as_deref(), Some(files[0].1.as_bytes()));
    assert_eq!(home.store.revision_file(added.number, "agents.yaml").await.unwrap(), None);
    for nothing in [0, added.number + 1, u64::MAX] {
        assert_eq!(home.store.revision(nothing).await.unwrap(), None);
        assert!(matches!(home.store.revision_tree(nothing).await, Err(StoreError::NotFound { .. })));
    }
    let events = home.store.events(0, 10, Default::default()).await.unwrap();
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["site.revision"]);
    let rows = home.store.audit_rows(0, 10).await.unwrap();
    assert_eq!((rows.len(), rows[0].action.as_str()), (1, "site.revision"));
}

pub async fn the_same_again_is_no_new_revision(home: &Home) {
    let files = [("agents.yml", "a: {}\n")];
    let first = add(&home.store, &files, SiteStatus::Live).await;
    let position = home.store.position();
    assert_eq!(add(&home.store, &files, SiteStatus::Live).await, first);
    assert_eq!(home.store.position(), position);
    // A folder that is held is found again and again.
    let other = [("agents.yml", "b: {}\n")];
    let held = add(&home.store, &other, SiteStatus::Held).await;
    assert_eq!(add(&home.store, &other, SiteStatus::Held).await, held);
    home.store.revision_reject(held.number, &admin(), NOW).await.unwrap();
    let again = add(&home.store, &other, SiteStatus::Held).await;
    assert_eq!((again.number, again.status), (held.number, SiteStatus::Rejected));
    // From somewhere else it is another question, and back to the first files is a new revision.
    let folder = NewRevision { source: "/srv/site".to_owned(), ..new(&other, SiteStatus::Held) };
    assert!(home.store.revision_add(folder, &admin(), NOW).await.unwrap().number > held.number);
    let second = add(&home.store, &other, SiteStatus::Live).await;
    let back = add(&home.store, &files, SiteStatus::Live).await;
    assert!(back.number > second.number && second.number > first.number);
    // Contents are stored once.
    assert_eq!(blobs(home), 2);
}

pub async fn a_push_on_another_base_is_refused(home: &Home) {
    let none = NewRevision { base: Some(1), ..new(&[("a", "1")], SiteStatus::Live) };
    assert!(matches!(home.store.revision_add(none, &admin(), NOW).await, Err(StoreError::Conflict { .. })));
    let first = NewRevision { base: Some(0), ..new(&[("a", "1")], SiteStatus::Live) };
    let first = home.store.revision_add(first, &admin(), NOW).await.unwrap().number;
    let racers: Vec<_> = (0..16)
        .map(|racer| {
            let content = format!("by {racer}");
            let push = NewRevision { base: Some(first), ..new(&[("a", &content)], SiteStatus::Live) };
            let store = home.store.clone();
            tokio::spawn(async move { store.revision_add(push, &admin(), NOW).await })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, StoreError::Conflict { .. })),
        }
    }
    assert_eq!((won, home.store.revisions(10).await.unwrap().len()), (1, 2));
}

pub async fn a_held_revision_waits_for_a_decision(home: &Home) {
    let first = add(&home.store, &[("roles.yml", "1")], SiteStatus::Live).await.number;
    let held = add(&home.store, &[("roles.yml", "2")], SiteStatus::Held).await.number;
    assert_eq!(live(&home.store).await, Some(first));
    let approved = home.store.revision_approve(held, &admin(), NOW).await.unwrap();
    assert_eq!((approved.status, live(&home.store).await), (SiteStatus::Live, Some(held)));
    for _ in 0..2 {
        assert!(matches!(home.store.revision_approve(held, &admin(), NOW).await, Err(StoreError::Conflict { .. })));
        assert!(matches!(home.store.revision_reject(held, &admin(), NOW).await, Err(StoreError::Conflict { .. })));
    }
    assert!(matches!(home.store.revision_approve(99, &admin(), NOW).await, Err(StoreError::NotFound { .. })));
    // What was made from something older would take the newer one back.
    let older = add(&home.store, &[("roles.yml", "3")], SiteStatus::Held).await.number;
    let newer = add(&home.store, &[("roles.yml", "4")], SiteStatus::Live).await.number;
    assert!(matches!(home.store.revision_approve(older, &admin(), NOW).await, Err(StoreError::Conflict { .. })));
    let rejected = home.store.revision_reject(older, &admin(), NOW).await.unwrap();
    assert_eq!((rejected.status, live(&home.store).await), (SiteStatus::Rejected, Some(newer)));
    assert!(matches!(home.store.revision_approve(older, &admin(), NOW).await, Err(StoreError::Conflict { .. })));
    let rows = home.store.audit_rows(0, 100).await.unwrap();
    let actions: Vec<&str> = rows.iter().map(|row| row.action.as_str()).filter(|one| *one != "site.revision").collect();
    assert_eq!(actions, ["site.approve", "site.reject"]);
}

pub async fn fifty_revisions_are_kept_and_the_one_in_force_always(home: &Home) {
    let first = add(&home.store, &[("a", "in force"), ("b", "shared")], SiteStatus::Live).await.number;
    for number in 0..50 {
        add(&home.store, &[("a", &format!("held {number}")), ("b", "shared")], SiteStatus::Held).await;
    }
    // 50 newest, and the one in force.
    assert_eq!(home.store.revisions(1000).await.unwrap().len(), 51);
    let last = add(&home.store, &[("a", "one more"), ("b", "shared")], SiteStatus::Held).await;
    let kept = home.store.revisions(1000).await.unwrap();
    assert_eq!((kept.len(), kept[0].number), (51, last.number));
    assert_eq!((live(&home.store).await, kept.last().map(|oldest| oldest.number)), (Some(first), Some(first)));
    assert_eq!(home.store.revision(first + 1).await.unwrap(), None);
    let year = Duration::from_secs(365 * 24 * 3600);
    assert_eq!(blobs(home), 53);
    home.store.prune(Retention { commands: year, events: year, audit: None }, NOW).await.unwrap();
    assert_eq!(blobs(home), 52);
    for revision in kept {
        assert_eq!(home.store.revision_tree(revision.number).await.unwrap().len(), 2);
    }
}

pub async fn a_site_larger_than_one_step_is_whole(home: &Home) {
    const MIB: usize = 1024 * 1024;
    let files: Vec<(String, Arc<[u8]>)> =
        (0..20_u8).map(|file| (format!("files/{file:02}"), Arc::from(vec![file; MIB]))).collect();
    let large = NewRevision { files: files.clone(), ..new(&[("x", "large")], SiteStatus::Live) };
    let number = home.store.revision_add(large, &admin(), NOW).await.unwrap().number;
    let store = home.reopened().await;
    let tree = store.revision_tree(number).await.unwrap();
    assert!(tree.iter().zip(&files).all(|(found, given)| found.0 == given.0 && found.1 == given.1[..]));
    assert_eq!(tree.len(), 20);
    store.close().await;
}

pub async fn a_content_that_was_changed_is_not_served(home: &Home) {
    let number = add(&home.store, &[("roles.yml", "deny"), ("a", "x")], SiteStatus::Live).await.number;
    let file = rusqlite::Connection::open(home.folder().join("paprika.db")).unwrap();
    file.execute("UPDATE site_blobs SET content = ?1 WHERE content = ?2", [b"give", b"deny"]).unwrap();
    assert!(matches!(home.store.revision_tree(number).await, Err(StoreError::Corrupt { .. })));
    assert!(matches!(home.store.revision_file(number, "roles.yml").await, Err(StoreError::Corrupt { .. })));
    assert!(home.store.revision_file(number, "a").await.is_ok());
}

pub async fn revisions_are_in_a_backup_and_their_numbers_never_return(home: &Home) {
    let first = add(&home.store, &[("a", "1")], SiteStatus::Live).await;
    let copy = home.folder().join("copy");
    home.store.backup(&copy).await.unwrap();
    let lost = add(&home.store, &[("a", "2")], SiteStatus::Live).await;
    let restored = Store::open(&copy).await.unwrap();
    assert_eq!(restored.revision_live().await.unwrap(), Some(first.clone()));
    assert_eq!(restored.revision_tree(first.number).await.unwrap(), [("a".to_owned(), b"1".to_vec())]);
    restored.declare_restored(&name("a"), StorePosition(0), NOW).await.unwrap();
    assert!(add(&restored, &[("a", "3")], SiteStatus::Live).await.number > lost.number);
    restored.close().await;
}
