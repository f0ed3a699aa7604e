//! Which identity is used, what is fallen back to, and what is never taken.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::super::authority::Authority;
use super::super::schedule::Validity;
use super::*;
use crate::clock::ManagerClock;

const OURS: &str = "paprika://c1/agent/web1/3";
/// Manager time of these tests.
const NOW: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

/// A host with a configured identity, an hour old.
struct Bench {
    folder: TempDir,
    authority: Authority,
    time: Arc<LinkTime>,
}

impl Bench {
    fn new() -> Self {
        let mut clock = ManagerClock::new("b", None);
        clock.hear(NOW, crate::clock::boot_ms());
        Self {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new("one"),
            time: Arc::new(LinkTime::new(&clock)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn slot(&self, name: &str, authority: &Authority, uri: &str, made: u64) {
        authority.identity(&self.path("state/identity").join(name), uri, lasting(made));
    }

    fn open(&self) -> Keeper {
        let configured = self.authority.identity(&self.path("etc"), OURS, lasting(NOW - HOUR));
        Keeper::open(configured, &self.path("state"), Arc::clone(&self.time)).unwrap()
    }

    /// Where the identities lie, in the order in which they are tried.
    fn order(&self) -> Vec<Place> {
        let keeper = self.open();
        keeper.others.iter().fold(vec![keeper.current.place], |mut all, one| {
            all.push(one.place);
            all
        })
    }
}

fn lasting(from_ms: u64) -> Validity {
    Validity { from_ms, until_ms: from_ms + 72 * HOUR }
}

const A: Place = Place::Slot(Slot::A);
const B: Place = Place::Slot(Slot::B);

#[test]
fn the_youngest_whole_identity_is_used_and_the_next_ones_follow() {
    let bench = Bench::new();
    assert_eq!(bench.order(), [Place::Configured]);
    bench.slot("a", &bench.authority, OURS, NOW);
    assert_eq!(bench.order(), [A, Place::Configured]);
    bench.slot("b", &bench.authority, OURS, NOW + HOUR);
    assert_eq!(bench.order(), [B, A, Place::Configured]);
}

#[test]
fn a_slot_that_is_not_whole_is_left_out() {
    type Damage = fn(PathBuf);
    let damages: [(&str, Damage); 6] = [
        ("no certificate", |slot| fs::remove_file(slot.join("cert.pem")).unwrap()),
        ("no key", |slot| fs::remove_file(slot.join("key.pem")).unwrap()),
        ("no authorities", |slot| fs::remove_file(slot.join("ca.pem")).unwrap()),
        ("an empty certificate", |slot| fs::write(slot.join("cert.pem"), "").unwrap()),
        ("a key for everybody", |slot| {
            fs::set_permissions(slot.join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("another key", |slot| {
            let other = tls::new_key().unwrap();
            fs::write(slot.join("key.pem"), other.key_pem.expose()).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let bench = Bench::new();
        bench.slot("a", &bench.authority, OURS, NOW);
        bench.slot("b", &bench.authority, OURS, NOW + HOUR);
        damage(bench.path("state/identity/b"));
        assert_eq!(bench.order(), [A, Place::Configured], "{what}");
    }
}

#[test]
fn what_another_bearer_left_is_left_out_and_written_over_first() {
    let bench = Bench::new();
    bench.slot("a", &bench.authority, OURS, NOW);
    bench.slot("b", &bench.authority, "paprika://c1/agent/web1/2", NOW + HOUR);
    assert_eq!(bench.order(), [A, Place::Configured]);
    assert_eq!(bench.open().successor().slot, Slot::B);
}

#[test]
fn an_older_identity_is_fallen_back_to_but_older_authorities_never_are() {
    let bench = Bench::new();
    let newer = Authority::new("two");
    bench.slot("a", &newer, OURS, NOW);
    let mut keeper = bench.open();
    let hash = tls::bundle_hash_of_pem(newer.pem.as_bytes()).unwrap();
    assert_eq!((keeper.current().place, keeper.current().bundle_hash), (A, hash));
    assert!(keeper.refused());
    assert_eq!((keeper.current().place, keeper.current().bundle_hash), (Place::Configured, hash));
}

#[test]
fn each_identity_is_tried_once_before_it_is_waited_for_long() {
    let bench = Bench::new();
    bench.slot("a", &bench.authority, OURS, NOW);
    bench.slot("b", &bench.authority, OURS, NOW + HOUR);
    let mut keeper = bench.open();
    for _ in 0..2 {
        assert_eq!(keeper.current().place, B);
        assert!(keeper.refused());
        assert_eq!(keeper.current().place, A);
        assert!(keeper.refused());
        assert_eq!(keeper.current().place, Place::Configured);
        assert!(!keeper.refused(), "all of them were refused");
    }
    assert!(keeper.refused());
    keeper.accepted();
    assert!(keeper.refused() && keeper.refused() && !keeper.refused(), "one that was taken begins anew");
    let alone = Bench::new();
    assert!(!alone.open().refused());
}

#[test]
fn what_is_issued_goes_into_the_free_slot_and_is_what_the_next_start_finds() {
    let bench = Bench::new();
    let mut keeper = bench.open();
    for (made, place, previous) in [(1, A, Place::Configured), (2, B, A), (3, A, B)] {
        let request = tls::new_key().unwrap();
        let issued = bench.authority.answer(&request.csr, OURS, lasting(NOW - HOUR / 2 + made * 1000));
        let next = keeper.successor().keep(&request, &issued).unwrap();
        assert_eq!(next.place, place);
        keeper.adopt(next);
        assert_eq!(keeper.others.front().map(|one| one.place), Some(previous));
        assert_eq!(bench.order().first(), Some(&place));
    }
    assert_eq!(keeper.others.len(), 2);
}

#[test]
fn what_was_not_asked_for_is_not_kept() {
    let bench = Bench::new();
    let keeper = bench.open();
    let (request, other) = (tls::new_key().unwrap(), tls::new_key().unwrap());
    let good = |uri: &str| bench.authority.answer(&request.csr, uri, lasting(NOW));
    let stranger = Authority::new("two");
    let refused: Vec<(&str, IssuedText)> = vec![
        ("another key", bench.authority.answer(&other.csr, OURS, lasting(NOW))),
        ("another name", good("paprika://c1/agent/web2/3")),
        ("another cluster", good("paprika://c2/agent/web1/3")),
        ("another generation", good("paprika://c1/agent/web1/4")),
        ("another role", good("paprika://c1/operator/web1/3")),
        ("over already", bench.authority.answer(&request.csr, OURS, lasting(NOW - 100 * HOUR))),
        ("not signed by what comes with it", IssuedText { bundle_pem: stranger.pem, ..good(OURS) }),
        ("no bundle", IssuedText { bundle_pem: String::new(), ..good(OURS) }),
        ("garbage", IssuedText { chain_pem: "garbage".to_owned(), ..good(OURS) }),
        ("too long", IssuedText { chain_pem: good(OURS).chain_pem.repeat(20), ..good(OURS) }),
    ];
    for (what, issued) in refused {
        let kept = keeper.successor().keep(&request, &issued);
        assert!(matches!(kept, Err(SuccessorError::Issued(_))), "{what}: {kept:?}");
        assert_eq!(bench.order(), [Place::Configured], "{what}");
    }
    assert!(keeper.successor().keep(&request, &good(OURS)).is_ok());
}

#[test]
fn a_slot_that_cannot_be_written_costs_nothing_that_is_there() {
    let bench = Bench::new();
    bench.slot("a", &bench.authority, OURS, NOW);
    let keeper = bench.open();
    fs::write(bench.path("state/identity/b"), "a file where a folder should be").unwrap();
    let request = tls::new_key().unwrap();
    let issued = bench.authority.answer(&request.csr, OURS, lasting(NOW));
    assert!(matches!(keeper.successor().keep(&request, &issued), Err(SuccessorError::File(_))));
    assert_eq!(bench.order(), [A, Place::Configured]);
}

#[test]
fn the_age_is_that_of_the_current_one() {
    let bench = Bench::new();
    assert_eq!(bench.open().age(), Age::Valid);
    bench.time.hear(NOW + 72 * HOUR);
    assert_eq!(bench.open().age(), Age::Ended);
    bench.time.hear(NOW + 40 * 24 * HOUR);
    assert!(matches!(bench.open().age(), Age::Gone { .. }));
}
