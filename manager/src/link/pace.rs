//! How often something may happen: so many at once, then one for each interval. Pure, with the time as an argument.
//!
//! One instant is all the memory of a meter, so that there can be one for each address.

use std::time::Duration;

use tokio::time::Instant;

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// So many at once after a rest.
    pub burst: u32,
    /// One more after each of these.
    pub interval: Duration,
}

/// What was used up.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Everything that was taken is earned again at this instant.
    rested: Instant,
}

impl Meter {
    /// Begins rested.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { rested: now }
    }

    /// Takes one, if it is allowed now.
    pub fn take(&mut self, pace: Pace, now: Instant) -> bool {
        let from = self.rested.max(now);
        let most = pace.interval * pace.burst.saturating_sub(1);
        if from.duration_since(now) > most {
            return false;
        }
        self.rested = from + pace.interval;
        true
    }

    /// Tells whether nothing needs to be remembered.
    #[must_use]
    pub fn is_rested(&self, now: Instant) -> bool {
        self.rested <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_for_each_interval() {
        let pace = Pace { burst: 3, interval: Duration::from_secs(10) };
        let start = Instant::now();
        let mut meter = Meter::new(start);
        assert!((0..3).all(|_| meter.take(pace, start)));
        assert!(!meter.take(pace, start));
        assert!(!meter.take(pace, start + Duration::from_millis(9_999)));
        assert!(meter.take(pace, start + Duration::from_secs(10)));
        assert!(!meter.take(pace, start + Duration::from_secs(10)));
        let later = start + Duration::from_secs(1_000);
        assert!(meter.is_rested(later));
        assert!((0..3).all(|_| meter.take(pace, later)));
        assert!(!meter.take(pace, later), "a long rest earns no more than the burst");
    }
}
