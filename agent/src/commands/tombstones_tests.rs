//! Tests of the tombstones.

#![expect(clippy::unwrap_used, reason = "tests")]

use common::model::Outcome;

use super::*;

const NOW: u64 = 1_000 * HOUR_MS;

fn tombstone(id: u64, expires_ms: u64) -> Tombstone {
    let end = End::cancelled("admin", "because", 5);
    Tombstone { uid: Uid::random(), id: CommandId(id), expires_ms, end }
}

#[test]
fn what_was_inserted_is_known_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b, c) = (tombstone(1, NOW), tombstone(2, NOW), tombstone(3, NOW + 5 * HOUR_MS));
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    known.insert_many(&[a.clone(), b.clone()]).unwrap();
    known.insert_many(std::slice::from_ref(&c)).unwrap();
    known.insert_many(std::slice::from_ref(&a)).unwrap();
    for known in [known, Tombstones::open(folder.path(), NOW).unwrap()] {
        assert_eq!(known.len(), 3);
        for stone in [&a, &b, &c] {
            assert!(known.contains(stone.uid));
            assert_eq!(known.get(stone.uid).unwrap().as_ref(), Some(stone));
            assert_eq!(known.uid_of(stone.id), Some(stone.uid));
        }
        assert_eq!(known.get(Uid::random()).unwrap(), None);
    }
}

#[test]
fn a_tombstone_stands_until_its_hour_has_passed_and_not_longer() {
    let folder = tempfile::tempdir().unwrap();
    let stone = tombstone(1, NOW);
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    known.insert_many(std::slice::from_ref(&stone)).unwrap();
    // Expiry plus one hour is the last hour in which it can matter.
    known.expire(NOW + 2 * HOUR_MS - 1).unwrap();
    assert!(known.contains(stone.uid));
    known.expire(NOW + 2 * HOUR_MS).unwrap();
    assert!(!known.contains(stone.uid) && known.uid_of(stone.id).is_none());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_end_torn_at_every_byte_loses_only_the_last_and_takes_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (first, last) = (tombstone(1, NOW), tombstone(2, NOW));
    let path = folder.path().join(hour_of(NOW).to_string());
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    known.insert_many(std::slice::from_ref(&first)).unwrap();
    let keep = fs::metadata(&path).unwrap().len() as usize;
    known.insert_many(std::slice::from_ref(&last)).unwrap();
    let content = fs::read(&path).unwrap();
    for cut in keep..content.len() {
        fs::write(&path, &content[..cut]).unwrap();
        let known = Tombstones::open(folder.path(), NOW).unwrap();
        assert!(known.contains(first.uid) && !known.contains(last.uid));
        assert_eq!(fs::metadata(&path).unwrap().len(), keep as u64);
        known.insert_many(std::slice::from_ref(&last)).unwrap();
        assert_eq!(Tombstones::open(folder.path(), NOW).unwrap().get(last.uid).unwrap(), Some(last.clone()));
    }
}

#[test]
fn damage_in_the_middle_takes_one_and_leaves_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let stones = [tombstone(1, NOW), tombstone(2, NOW), tombstone(3, NOW)];
    let path = folder.path().join(hour_of(NOW).to_string());
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    let mut edges = vec![MAGIC.len()];
    for stone in &stones {
        known.insert_many(std::slice::from_ref(stone)).unwrap();
        edges.push(fs::metadata(&path).unwrap().len() as usize);
    }
    let content = fs::read(&path).unwrap();
    for at in edges[1]..edges[2] {
        let mut bad = content.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let known = Tombstones::open(folder.path(), NOW).unwrap();
        assert!(known.contains(stones[0].uid) && known.contains(stones[2].uid), "byte {at}");
        assert!(!known.contains(stones[1].uid), "byte {at}");
    }
}

#[test]
fn an_outcome_is_what_the_tombstone_was_made_with() {
    let folder = tempfile::tempdir().unwrap();
    let mut stone = tombstone(9, NOW);
    stone.end = End::expired(7);
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    known.insert_many(std::slice::from_ref(&stone)).unwrap();
    assert_eq!(known.get(stone.uid).unwrap().map(|stone| stone.end.outcome), Some(Outcome::Expired));
    assert_eq!(known.list(), vec![(stone.uid, CommandId(9))]);
}

#[test]
fn a_command_is_looked_up_while_somebody_writes() {
    let folder = tempfile::tempdir().unwrap();
    let stone = tombstone(1, NOW);
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    known.insert_many(std::slice::from_ref(&stone)).unwrap();
    let _busy = known.writer();
    assert_eq!(known.get(stone.uid).unwrap().as_ref(), Some(&stone));
    assert_eq!(known.uid_of(stone.id), Some(stone.uid));
}

#[test]
fn without_room_nothing_is_known_and_the_next_try_starts_clean() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(hour_of(NOW).to_string());
    let stone = tombstone(1, NOW);
    let known = Tombstones::open(folder.path(), 0).unwrap();
    // Reading it never ends, so it comes after the start.
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    assert!(known.insert_many(std::slice::from_ref(&stone)).is_err_and(|error| error.is_full()));
    assert!(!known.contains(stone.uid));
    fs::remove_file(&path).unwrap();
    known.insert_many(std::slice::from_ref(&stone)).unwrap();
    assert_eq!(Tombstones::open(folder.path(), 0).unwrap().get(stone.uid).unwrap(), Some(stone));
}
