//! Who may start next: the queue of commands that were accepted and have no place among those that run. Pure: how many
//! run, and what time it is, are arguments.
//!
//! ```text
//! accepted ─► queue (first accepted, first started) ─► place ─► END is known: the place is free again
//!                │
//!                └─► cancelled, expired: ended without a place
//! ```
//! Order is that of acceptance, also after a restart: records say when they were accepted. Whoever was accepted earlier
//! and is still being looked at holds back those behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::id::Uid;
use tokio::time::{Duration, Instant};

use crate::limits::STARVED;

/// As many run as may (protocol R-CMD-12).
pub(super) const PARALLEL_LIMIT: &str = "parallel_limit";
/// The host cannot make another process now.
pub(super) const NO_RESOURCES: &str = "no_resources";

/// A command's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// Manager time of the acceptance.
    pub(super) accepted_ms: u64,
    pub(super) id: u64,
    pub(super) uid: Uid,
}

/// Why and where a command waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    /// A stable word.
    pub(super) reason: &'static str,
    /// 1 is next.
    pub(super) place: u64,
    pub(super) total: u64,
}

/// The queue and what holds it up.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    /// With the end of their validity.
    queue: BTreeMap<Turn, u64>,
    /// The same in that order.
    expiries: BTreeSet<(u64, Turn)>,
    /// Accepted, not started as far as is known, and being looked at.
    unsure: BTreeSet<Turn>,
    /// The same by name: one that is forgotten meanwhile must not hold back the others for ever.
    looks: HashMap<Uid, Turn>,
    /// Until when no process is made, and how long the last pause was.
    starved: Option<(Instant, Duration)>,
    /// When whoever waits is told so.
    pub(super) tell_at: Option<Instant>,
    /// Somebody began to wait, or the manager's ear is a new one.
    pub(super) news: bool,
}

impl Places {
    /// With so many places.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            queue: BTreeMap::new(),
            expiries: BTreeSet::new(),
            unsure: BTreeSet::new(),
            looks: HashMap::new(),
            starved: None,
            tell_at: None,
            news: false,
        }
    }

    /// Takes a command into the queue.
    pub(super) fn enter(&mut self, turn: Turn, expires_ms: u64) {
        self.queue.insert(turn, expires_ms);
        self.expiries.insert((expires_ms, turn));
        self.news = true;
    }

    /// Takes it out again; `false` when it was not there.
    pub(super) fn leave(&mut self, turn: Turn) -> bool {
        let Some(expires_ms) = self.queue.remove(&turn) else { return false };
        self.expiries.remove(&(expires_ms, turn))
    }

    /// A command that may come into the queue is being looked at.
    pub(super) fn look(&mut self, turn: Turn) {
        self.looked(turn.uid);
        self.looks.insert(turn.uid, turn);
        self.unsure.insert(turn);
    }

    /// The look is over.
    pub(super) fn looked(&mut self, uid: Uid) {
        if let Some(turn) = self.looks.remove(&uid) {
            self.unsure.remove(&turn);
        }
    }

    /// The next one to start while `busy` have a place.
    pub(super) fn next(&self, busy: usize, now: Instant) -> Option<Turn> {
        if busy >= self.max || self.starved.is_some_and(|(until, _)| until > now) {
            return None;
        }
        let (head, _) = self.queue.first_key_value()?;
        self.unsure.first().is_none_or(|older| older > head).then_some(*head)
    }

    /// One whose validity ended before `now_ms` (protocol R-CMD-5).
    pub(super) fn expired(&self, now_ms: u64) -> Option<Turn> {
        self.expiries.first().filter(|(expires_ms, _)| *expires_ms <= now_ms).map(|(_, turn)| *turn)
    }

    /// The host could not make a process: nobody tries for a while. Answers how long.
    pub(super) fn starve(&mut self, now: Instant) -> Duration {
        let pause = match self.starved {
            // Others were on their way when the first failed: one shortage, one pause.
            Some((until, pause)) if until > now => return pause,
            Some((_, pause)) => (pause * 2).min(STARVED.1),
            None => STARVED.0,
        };
        self.starved = Some((now + pause, pause));
        pause
    }

    /// The host made a process.
    pub(super) fn thrive(&mut self) {
        self.starved = None;
    }

    /// When the next try may be made.
    pub(super) fn starved_until(&self) -> Option<Instant> {
        self.starved.filter(|_| !self.queue.is_empty()).map(|(until, _)| until)
    }

    /// Tells whether anybody waits for more than its turn at the door.
    pub(super) fn any_waits(&self, busy: usize) -> bool {
        self.starting(busy) < self.queue.len()
    }

    /// All that wait, first come first.
    pub(super) fn waiting(&self, busy: usize) -> impl Iterator<Item = (Uid, Waiting)> {
        let free = self.max.saturating_sub(busy);
        let skip = self.starting(busy);
        let total = self.queue.len().saturating_sub(skip) as u64;
        self.queue.keys().enumerate().skip(skip).map(move |(index, turn)| {
            let reason = if index < free { NO_RESOURCES } else { PARALLEL_LIMIT };
            (turn.uid, Waiting { reason, place: (index - skip) as u64 + 1, total })
        })
    }

    /// How many of the queue have a place and only wait for the door.
    fn starting(&self, busy: usize) -> usize {
        if self.starved.is_some() { 0 } else { self.max.saturating_sub(busy) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(accepted_ms: u64, id: u64) -> Turn {
        Turn { accepted_ms, id, uid: Uid([u8::try_from(id).unwrap_or(0); 16]) }
    }

    fn waiting(places: &Places, busy: usize) -> Vec<(u8, &'static str, u64, u64)> {
        places.waiting(busy).map(|(uid, waiting)| (uid.0[0], waiting.reason, waiting.place, waiting.total)).collect()
    }

    fn full(max: usize) -> Places {
        let mut places = Places::new(max);
        for (accepted_ms, id) in [(5, 3), (4, 9), (5, 2), (6, 1)] {
            places.enter(turn(accepted_ms, id), 100 + id);
        }
        places
    }

    /// Protocol R-CMD-12.
    #[test]
    fn first_accepted_first_started_and_the_others_have_a_place() {
        let mut places = full(2);
        let now = Instant::now();
        assert_eq!(places.next(1, now).map(|turn| turn.id), Some(9));
        assert_eq!(places.next(2, now), None, "there is no place");
        assert_eq!(places.next(3, now), None, "nor when more were found than may run");
        assert_eq!(
            waiting(&places, 1),
            [(2, PARALLEL_LIMIT, 1, 3), (3, PARALLEL_LIMIT, 2, 3), (1, PARALLEL_LIMIT, 3, 3)]
        );
        assert!(places.leave(turn(4, 9)));
        assert!(!places.leave(turn(4, 9)));
        assert_eq!(waiting(&places, 2).first(), Some(&(2, PARALLEL_LIMIT, 1, 3)));
        assert_eq!(waiting(&places, 0), [(1, PARALLEL_LIMIT, 1, 1)]);
        assert!(places.any_waits(0));
        assert!(places.leave(turn(5, 2)));
        assert!(!places.any_waits(0), "two have a place and wait only for the door");
    }

    #[test]
    fn an_older_one_that_is_being_looked_at_holds_back_the_younger_ones() {
        let mut places = full(2);
        let now = Instant::now();
        places.look(turn(4, 8));
        assert_eq!(places.next(0, now), None);
        // What is known of it may have changed, or it may be forgotten: its name is enough.
        places.look(turn(3, 8));
        places.looked(turn(0, 8).uid);
        places.look(turn(5, 7));
        assert_eq!(places.next(0, now).map(|turn| turn.id), Some(9), "a younger one holds back nobody");
    }

    #[test]
    fn without_resources_all_wait_and_tries_become_rare_but_never_end() {
        let mut places = full(2);
        let now = Instant::now();
        assert_eq!(places.starve(now), STARVED.0);
        assert_eq!(places.starve(now), STARVED.0, "one shortage is one pause");
        assert_eq!(places.next(0, now), None);
        assert_eq!(waiting(&places, 0)[1..3], [(2, NO_RESOURCES, 2, 4), (3, PARALLEL_LIMIT, 3, 4)]);
        let mut at = now + STARVED.0;
        assert!(places.next(0, at).is_some());
        for _ in 0..20 {
            let pause = places.starve(at);
            assert!(pause <= STARVED.1);
            at += pause;
        }
        assert_eq!(places.starved_until(), Some(at));
        places.thrive();
        assert!(places.next(0, now).is_some());
        assert_eq!(places.starve(now), STARVED.0, "it starts again from the bottom");
    }

    #[test]
    fn whoever_expires_is_found_wherever_it_stands_in_the_queue() {
        let mut places = full(1);
        assert_eq!(places.expired(100), None);
        assert_eq!(places.expired(101).map(|turn| turn.id), Some(1));
        places.leave(turn(6, 1));
        assert_eq!(places.expired(200).map(|turn| turn.id), Some(2));
    }
}
