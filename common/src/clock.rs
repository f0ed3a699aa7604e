//! The wall clock, read in one place. For people and for expiry; waiting uses the monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Reads the wall clock as Unix milliseconds; 0 when it stands before 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
