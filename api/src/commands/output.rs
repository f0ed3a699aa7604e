//! The bytes of a command: pieces of its streams, and how far they were read.

use std::collections::BTreeMap;

use common::model::StreamName;
use serde::{Deserialize, Serialize};

/// The trailer of a raw output that ended before its stream did: the offset at which to go on.
pub const NEXT_OFFSET: &str = "paprika-next-offset";

/// A piece of a stream, the data of the SSE event `output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutputChunk {
    /// The stream.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::stream))]
    pub stream: StreamName,
    /// Where the piece begins.
    pub offset: u64,
    /// The bytes in base64; empty for a gap.
    #[serde(default)]
    pub b64: String,
    /// Bytes that no longer exist, from `offset` on; 0 for a piece with bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gap: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// How far each stream of a command was read: the id of SSE events and `Last-Event-ID`, `stdout=N;stderr=M`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputCursor(pub BTreeMap<StreamName, u64>);

impl OutputCursor {
    /// The next offset of a stream; 0 when none was read of it.
    #[must_use]
    pub fn next(&self, stream: StreamName) -> u64 {
        self.0.get(&stream).copied().unwrap_or(0)
    }

    /// Remembers the next offset of a stream.
    pub fn advance(&mut self, stream: StreamName, next: u64) {
        self.0.insert(stream, next);
    }
}

impl std::fmt::Display for OutputCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (stream, next)) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { ";" };
            write!(f, "{between}{stream}={next}")?;
        }
        Ok(())
    }
}

/// A text is not a position in the output of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position in the output looks like stdout=123;stderr=0")]
pub struct NotACursor;

impl std::str::FromStr for OutputCursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut cursor = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (stream, next) = part.split_once('=').ok_or(NotACursor)?;
            let stream = stream.trim().parse().map_err(|_| NotACursor)?;
            let digits = next.trim();
            if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return Err(NotACursor);
            }
            if cursor.0.insert(stream, digits.parse().map_err(|_| NotACursor)?).is_some() {
                return Err(NotACursor);
            }
        }
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nonsense_is_refused() {
        let cursor: OutputCursor = "stdout=12;stderr=0".parse().unwrap();
        assert_eq!(
            (cursor.next(StreamName::Stdout), cursor.next(StreamName::Stderr), cursor.next(StreamName::Steps)),
            (12, 0, 0)
        );
        assert_eq!(cursor.to_string(), "stdout=12;stderr=0");
        assert_eq!("".parse(), Ok(OutputCursor::default()));
        for bad in
            ["stdout", "stdout=", "stdout=-1", "stdout=+1", "out=1", "stdout=1;stdout=2", "stdout=99999999999999999999"]
        {
            assert_eq!(bad.parse::<OutputCursor>(), Err(NotACursor), "{bad}");
        }
    }
}
