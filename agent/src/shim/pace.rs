//! How much of the host a command may take by writing: nothing is held back that will be kept, everything else is paced.
//!
//! The command waits at its pipe meanwhile, as for any reader that is slower. Pure, apart from the shim's own priority.

use std::fs;
use std::time::Instant;

use crate::limits::{FLOOD_BYTES, FLOOD_NICE, OVERFLOW_BYTES, OVERFLOW_SPAN};

/// The pace of one command's output, both streams together.
pub(super) struct Pace {
    /// Bytes that are kept at the most; beyond it the pace counts.
    quota: u64,
    written: u64,
    /// The span that is under way, and what it has brought.
    span: Option<(Instant, u64)>,
    /// Nothing is read before this.
    rest_until: Option<Instant>,
}

impl Pace {
    pub(super) fn new(quota: u64) -> Self {
        Self { quota, written: 0, span: None, rest_until: None }
    }

    /// Bytes were read.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        let before = self.written;
        self.written += bytes as u64;
        if before < FLOOD_BYTES && self.written >= FLOOD_BYTES {
            stand_back();
        }
        if self.written <= self.quota {
            return;
        }
        let (since, brought) = self.span.filter(|(since, _)| now - *since < OVERFLOW_SPAN).unwrap_or((now, 0));
        let brought = brought + bytes as u64;
        self.span = Some((since, brought));
        if brought >= OVERFLOW_BYTES {
            self.rest_until = Some(since + OVERFLOW_SPAN);
        }
    }

    /// When reading may go on; none: now.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rest_until.filter(|until| now < *until)
    }
}

/// Lowers our own priority. The command keeps its own: its process was made before, in a session of its own. Where it is
/// refused, all is as it was.
fn stand_back() {
    let _ = rustix::process::nice(FLOOD_NICE);
    // A kernel that shares the processors between sessions (`sched_autogroup_enabled`) does not look at the niceness of a
    // process beyond its own session, and ours has nobody else: the session has a niceness for that.
    let _ = fs::write("/proc/self/autogroup", FLOOD_NICE.to_string());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PIECE: usize = 256 * 1024;

    /// Reads as fast as the pace allows for so long; every read takes no time at all.
    fn flood(pace: &mut Pace, start: Instant, span: Duration) -> u64 {
        let (mut now, mut bytes) = (start, 0);
        while now < start + span {
            match pace.rests_until(now) {
                Some(until) => now = until,
                None => {
                    pace.took(PIECE, now);
                    bytes += PIECE as u64;
                    // A clock that stands still would read for ever.
                    now += Duration::from_micros(1);
                }
            }
        }
        bytes
    }

    #[test]
    fn what_is_kept_is_never_held_back_and_what_is_not_is_paced() {
        let start = Instant::now();
        // Below the size at which the priority changes, which is this test's own as well.
        let quota = 16 * PIECE as u64;
        let mut pace = Pace::new(quota);
        for _ in 0..16 {
            pace.took(PIECE, start);
            assert_eq!(pace.rests_until(start), None);
        }
        let span = OVERFLOW_SPAN * 4;
        let bytes = flood(&mut pace, start, span);
        assert!((OVERFLOW_BYTES * 4..=OVERFLOW_BYTES * 5).contains(&bytes), "{bytes}");
        assert!(pace.written < FLOOD_BYTES);
    }

    #[test]
    fn a_trickle_over_quota_never_waits() {
        let start = Instant::now();
        let mut pace = Pace::new(1);
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            pace.took(PIECE, now);
            assert_eq!(pace.rests_until(now), None);
        }
    }
}
