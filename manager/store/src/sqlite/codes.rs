//! Numbers in the files for words in the program, and the way between `u64` here and SQLite's signed integers.

use common::id::{Name, Uid};
use common::model::{Phase, StreamName};

use crate::error::StoreError;

/// The phases with their numbers. Final ones start at [`FIRST_FINAL`]; numbers that were used stay as they are.
const PHASES: [(Phase, i64); 14] = [
    (Phase::Queued, 0),
    (Phase::Dispatched, 1),
    (Phase::Accepted, 2),
    (Phase::Waiting, 3),
    (Phase::Running, 4),
    (Phase::Paused, 5),
    (Phase::Stopping, 6),
    (Phase::Succeeded, 10),
    (Phase::Failed, 11),
    (Phase::Cancelled, 12),
    (Phase::TimedOut, 13),
    (Phase::Expired, 14),
    (Phase::Refused, 15),
    (Phase::Interrupted, 16),
];

/// The lowest number of a final phase.
pub(super) const FIRST_FINAL: i64 = 10;

/// The number of a phase.
pub(super) fn phase_code(phase: Phase) -> i64 {
    PHASES.iter().find(|(known, _)| *known == phase).map_or(-1, |(_, code)| *code)
}

/// The phase of a number.
pub(super) fn phase_of(code: i64) -> Result<Phase, StoreError> {
    PHASES.iter().find(|(_, known)| *known == code).map(|(phase, _)| *phase).ok_or(StoreError::corrupt("phase"))
}

/// The number of a stream.
pub(super) fn stream_code(stream: StreamName) -> i64 {
    i64::from(stream.to_wire())
}

/// The stream of a number.
pub(super) fn stream_of(code: i64) -> Result<StreamName, StoreError> {
    i32::try_from(code).ok().and_then(StreamName::from_wire).ok_or(StoreError::corrupt("stream"))
}

/// A number as SQLite keeps it.
pub(super) fn int(value: u64, field: &'static str) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::OutOfRange { field })
}

/// A limit as SQLite takes it.
pub(super) fn limit(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number that was stored by [`int`].
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A name that was stored.
pub(super) fn name(text: &str) -> Result<Name, StoreError> {
    text.parse().map_err(|_| StoreError::corrupt("name"))
}

/// A uid that was stored.
pub(super) fn uid(bytes: &[u8]) -> Result<Uid, StoreError> {
    Uid::from_wire(bytes).map_err(|_| StoreError::corrupt("uid"))
}

/// JSON text of one of our own records.
pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::OutOfRange { field: "record" })
}

/// A record that was stored as JSON text.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::corrupt(what))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_phase_has_its_own_number_and_final_ones_are_on_their_side() {
        for phase in Phase::ALL {
            let code = phase_code(phase);
            assert_eq!(phase_of(code).unwrap(), phase);
            assert_eq!(code >= FIRST_FINAL, phase.is_final());
        }
    }

    #[test]
    fn numbers_beyond_the_file_format_are_refused() {
        assert_eq!(int(i64::MAX as u64, "x").unwrap(), i64::MAX);
        assert!(int(i64::MAX as u64 + 1, "x").is_err());
    }
}
