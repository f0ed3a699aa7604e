//! The time by which TLS judges certificates: the manager's, as far as it is known.
//!
//! Hosts start with the clock of their firmware, years behind or ahead. What was heard from the manager in this boot is
//! carried on by the boot-time clock; before that the wall clock counts, but never less than the latest manager time
//! that is known of: an old certificate does not become valid again because a battery is empty.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::tls::{TimeProvider, UnixTime};

use crate::clock::{ManagerClock, boot_ms};

/// The best knowledge of manager time, shared by the connections.
#[derive(Debug)]
pub(crate) struct LinkTime(Mutex<Known>);

/// What is known. Pure: both clocks of the host are arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Manager time and boot-time clock when the manager was heard last in this boot.
    heard: Option<(u64, u64)>,
    /// The latest manager time that is known of.
    floor: u64,
}

impl Known {
    fn now(self, wall_ms: u64, boot_ms: u64) -> u64 {
        match self.heard {
            Some((manager, boot)) => manager.saturating_add(boot_ms.saturating_sub(boot)),
            None => wall_ms.max(self.floor),
        }
    }

    fn hear(&mut self, manager_ms: u64, boot_ms: u64) {
        if manager_ms != 0 {
            self.heard = Some((manager_ms, boot_ms));
        }
    }
}

impl LinkTime {
    /// Goes on from what the agent remembers.
    pub(crate) fn new(clock: &ManagerClock) -> Self {
        Self(Mutex::new(Known { heard: clock.heard(), floor: clock.highest() }))
    }

    /// The wall clock alone, for a host that has never heard a manager.
    pub(crate) fn wall() -> Self {
        Self(Mutex::new(Known { heard: None, floor: 0 }))
    }

    /// Tells the time, Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.now(common::clock::unix_ms(), boot_ms())
    }

    /// Hears the clock of a manager that proved who it is.
    pub(crate) fn hear(&self, manager_ms: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hear(manager_ms, boot_ms());
    }
}

impl TimeProvider for LinkTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.now_ms())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_in_this_boot_counts_and_the_wall_clock_does_not() {
        let known = Known { heard: Some((1_000_000, 50)), floor: 2_000_000 };
        for wall in [0, 1_000, u64::MAX] {
            assert_eq!(known.now(wall, 60), 1_000_010);
        }
    }

    #[test]
    fn a_manager_whose_clock_was_set_right_is_believed() {
        let mut known = Known { heard: Some((9_000_000, 0)), floor: 9_000_000 };
        known.hear(1_000, 10);
        assert_eq!(known.now(5, 11), 1_001);
        known.hear(0, 20);
        assert_eq!(known.now(5, 21), 1_011, "a message without a clock says nothing");
    }

    #[test]
    fn after_a_boot_the_wall_clock_counts_unless_it_lies_before_what_is_known() {
        let known = Known { heard: None, floor: 500 };
        assert_eq!(known.now(1_000, 7), 1_000);
        assert_eq!(known.now(3, 7), 500);
    }
}
