//! The wall clock, read in one place. For people and for expiry; waiting uses the monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Names a file with signed milliseconds that are added to the wall clock; read at every call, in debug builds only, so
/// that a test can set the clock of a process that runs.
pub const OFFSET_VARIABLE: &str = "PAPRIKA_CLOCK_OFFSET_FILE";

/// Reads the wall clock as Unix milliseconds; 0 when it stands before 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn unix_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    if cfg!(debug_assertions) { now.saturating_add_signed(offset()) } else { now }
}

/// What a test adds; nothing when it says nothing that can be read.
fn offset() -> i64 {
    let Some(file) = std::env::var_os(OFFSET_VARIABLE) else { return 0 };
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
