//! What is said in the log about one session, and how much nonsense it may send: pure, with the time as an argument.
//!
//! An agent has a certificate, so it may be wrong for a while, e.g. after an upgrade. It may not fill the log's disk, nor
//! keep the manager busy with refusing it.

use tokio::time::Instant;

use super::inbound::Violation;
use super::strangers::{Turn, Window};
use crate::limits::{MALFORMED_SPAN, MAX_MALFORMED};

/// The patience with one session.
#[derive(Debug)]
pub(super) struct Complaints {
    log: Window,
    began: Instant,
    malformed: u32,
}

impl Complaints {
    /// Begins with all of it.
    pub(super) fn new(now: Instant) -> Self {
        Self { log: Window::new(now), began: now, malformed: 0 }
    }

    /// Tells whether a line may be written, and how many were not since the last one.
    pub(super) fn line(&mut self, now: Instant) -> Option<u64> {
        match self.log.turn(now) {
            Turn::Say { unsaid } => Some(unsaid),
            Turn::Count => None,
        }
    }

    /// Counts a malformed frame.
    ///
    /// # Errors
    /// When there were too many.
    pub(super) fn malformed(&mut self, now: Instant) -> Result<(), Violation> {
        if now.duration_since(self.began) >= MALFORMED_SPAN {
            (self.began, self.malformed) = (now, 0);
        }
        self.malformed += 1;
        if self.malformed > MAX_MALFORMED { Err(Violation("too many malformed messages")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_malformed_frames_a_minute_are_survived_and_one_more_is_not() {
        let start = Instant::now();
        let mut complaints = Complaints::new(start);
        assert!((0..MAX_MALFORMED).all(|_| complaints.malformed(start).is_ok()));
        assert!(complaints.malformed(start + MALFORMED_SPAN / 2).is_err());
        assert!(
            (0..MAX_MALFORMED).all(|_| complaints.malformed(start + MALFORMED_SPAN).is_ok()),
            "a minute later it is forgiven"
        );
    }
}
