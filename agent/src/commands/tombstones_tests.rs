//! Tests of the tombstones.

#![expect(clippy::unwrap_used, reason = "tests")]

use common::model::Outcome;

use super::*;
use crate::commands::{GapRange, StreamEnd};

const NOW: u64 = 1_000 * HOUR_MS;

fn tombstone(id: u64, expires_ms: u64) -> Tombstone {
    let end = End::cancelled("admin", "because", 5);
    let origin = Origin { generation: 4, operation: "command.run".into(), created_ms: 3 };
    Tombstone { uid: Uid::random(), id: CommandId(id), expires_ms, end, origin: Some(origin) }
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

/// Protocol R-RES-4.
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
    let summary = Summary { uid: stone.uid, id: CommandId(9), generation: Some(4), started_ms: 0, streams: Vec::new() };
    assert_eq!(known.list(), vec![summary]);
}

#[test]
fn one_from_before_origins_were_kept_is_read_and_one_with_an_origin_is_read_by_an_agent_from_before() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Tombstone { origin: None, ..tombstone(1, NOW) }, tombstone(2, NOW));
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    known.insert_many(&[old.clone(), new.clone()]).unwrap();
    // What an agent from before wrote: nothing but END.
    let before = payload(&old, &old.end);
    assert_eq!(before[FIXED..], serde_json::to_vec(&old.end).unwrap());
    // What it reads: END, whatever else there is.
    assert_eq!(serde_json::from_slice::<End>(&payload(&new, &new.end)[FIXED..]).unwrap(), new.end);
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    for stone in [&old, &new] {
        assert_eq!(known.get(stone.uid).unwrap().as_ref(), Some(stone));
    }
    let generations: Vec<_> = known.list().into_iter().map(|one| (one.uid, one.generation)).collect();
    assert_eq!(generations, [(old.uid, None), (new.uid, Some(4))]);
}

#[test]
fn an_end_of_any_size_is_kept_with_what_fits() {
    let folder = tempfile::tempdir().unwrap();
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    let mut many = tombstone(1, NOW);
    let gaps = vec![GapRange { offset: 7, length: 1 }; 100_000];
    many.end.streams = vec![StreamEnd { stream: StreamName::Stdout, length: 99, gaps, segments: Vec::new() }];
    let mut long = tombstone(2, NOW);
    long.end.cancel_reason = "\u{1}".repeat(200_000);
    let small = tombstone(3, NOW);
    known.insert_many(&[many.clone(), long.clone(), small.clone()]).unwrap();
    let known = Tombstones::open(folder.path(), NOW).unwrap();
    assert_eq!(known.get(many.uid).unwrap().map(|stone| stone.end), Some(many.end.lengths_only()));
    assert_eq!(known.get(long.uid).unwrap().map(|stone| stone.end), Some(long.end.cut()));
    assert_eq!(known.get(small.uid).unwrap(), Some(small));
    assert_eq!(known.list()[0].streams, [(StreamName::Stdout, 99)]);
}

#[test]
fn an_hour_that_cannot_be_written_stops_no_other_and_nothing_is_written_twice() {
    let folder = tempfile::tempdir().unwrap();
    let known = Tombstones::open(folder.path(), 0).unwrap();
    let (bad, good) = (tombstone(1, NOW), tombstone(2, NOW + HOUR_MS));
    let broken = folder.path().join(hour_of(NOW).to_string());
    fs::create_dir(&broken).unwrap();
    let size = || fs::metadata(folder.path().join(hour_of(NOW + HOUR_MS).to_string())).unwrap().len();
    assert!(known.insert_many(&[bad.clone(), good.clone()]).is_err());
    let once = size();
    assert!(known.insert_many(&[good.clone(), bad.clone()]).is_err());
    assert_eq!(size(), once);
    assert!(known.contains(good.uid) && !known.contains(bad.uid));
    fs::remove_dir(&broken).unwrap();
    known.insert_many(&[good, bad.clone()]).unwrap();
    assert_eq!(known.get(bad.uid).unwrap(), Some(bad));
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
