//! The manager's time: the wall clock, except that it never goes back.
//!
//! Agents judge by it whether a command may still start, and theirs never goes back either (protocol R-CMD-5). A manager
//! that followed a wall clock which is set back would accept commands that every agent takes for expired.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::WORTH_A_WORD;
use store::types::{Event, Millis};

/// Tells time. One for each manager.
#[derive(Debug)]
pub(crate) struct ManagerTime(Mutex<Reading>);

/// What was told last.
#[derive(Debug, Clone, Copy)]
struct Reading {
    told: Millis,
    at: Instant,
    /// How far the wall clock was behind.
    behind: Duration,
}

impl Reading {
    /// The next reading: pure, with both clocks as arguments.
    fn after(self, wall: Millis, at: Instant) -> Self {
        let passed = millis(at.saturating_duration_since(self.at));
        let carried = self.told.saturating_add(passed);
        // What passed of the next millisecond is not lost: it counts from where the last whole one ended.
        let at = if wall > carried { at } else { self.at + Duration::from_millis(passed) };
        Self { told: carried.max(wall), at, behind: Duration::from_millis(carried.saturating_sub(wall)) }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl ManagerTime {
    /// Begins with the wall clock.
    pub(crate) fn new(wall: Millis) -> Self {
        Self(Mutex::new(Reading { told: wall, at: Instant::now(), behind: Duration::ZERO }))
    }

    /// Goes on from where an earlier process had come, as far as its last events tell.
    pub(crate) fn go_on(&self, past: &[Event]) {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = past.iter().map(|event| event.at).max().unwrap_or(0);
        reading.told = reading.told.max(highest);
    }

    /// Tells the time.
    pub(crate) fn now(&self, wall: Millis) -> Millis {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = reading.after(wall, Instant::now());
        if next.behind >= WORTH_A_WORD && reading.behind < WORTH_A_WORD {
            tracing::error!(
                behind = %common::config::HumanDuration(whole(next.behind)),
                "the wall clock of this host is behind the time that agents were told: times are shown ahead of it until it has caught up"
            );
        }
        *reading = next;
        next.told
    }

    /// How far the wall clock was behind when the time was told last, where that is worth a word.
    pub(crate) fn behind(&self) -> Option<Duration> {
        let behind = self.0.lock().unwrap_or_else(PoisonError::into_inner).behind;
        (behind >= WORTH_A_WORD).then(|| whole(behind))
    }
}

fn whole(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_the_wall_clock_and_never_goes_back() {
        let start = Instant::now();
        let day = 86_400_000;
        let after = |ms| start + Duration::from_millis(ms);
        let first = Reading { told: 10_000, at: start, behind: Duration::ZERO };
        let right = first.after(10_500, after(500));
        assert_eq!((right.told, right.behind), (10_500, Duration::ZERO));
        let ahead = right.after(10_600 + day, after(600));
        assert_eq!(ahead.told, 10_600 + day);
        let back = ahead.after(11_600, after(1_600));
        assert_eq!((back.told, back.behind), (11_600 + day, Duration::from_millis(day)));
        let caught_up = back.after(12_000 + day + 5_000, after(2_000));
        assert_eq!((caught_up.told, caught_up.behind), (17_000 + day, Duration::ZERO));
    }

    #[test]
    fn looking_often_does_not_slow_a_clock_that_is_carried_on() {
        let start = Instant::now();
        let mut reading = Reading { told: 10_000, at: start, behind: Duration::ZERO };
        for step in 1..=1_000_u64 {
            reading = reading.after(0, start + Duration::from_micros(step * 1_700));
        }
        assert_eq!(reading.told, 11_700);
    }

    #[test]
    fn a_new_process_goes_on_from_the_past() {
        let time = ManagerTime::new(1_000);
        let event = |at| Event { seq: 1, at, kind: String::new(), agent: None, command: None, body: String::new() };
        time.go_on(&[event(50_000), event(900)]);
        assert!(time.now(1_000) >= 50_000);
        assert_eq!(time.behind(), Some(Duration::from_secs(49)));
        time.go_on(&[]);
        assert_eq!(time.now(90_000), 90_000);
        assert_eq!(time.behind(), None);
    }
}
