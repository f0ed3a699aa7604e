//! The byte streams of a command. Each is addressed by offset and append-only.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::wire;

/// One stream of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamName {
    /// What the process wrote to its standard output.
    Stdout,
    /// What the process wrote to its standard error.
    Stderr,
    /// Structured progress of a state run.
    Steps,
}

impl StreamName {
    /// All streams in the order in which people see them.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Steps];

    /// The name in files, URLs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Steps => "steps",
        }
    }

    /// The value on the wire; also the number under which the store keeps it.
    #[must_use]
    pub fn to_wire(self) -> i32 {
        match self {
            Self::Stdout => wire::Stream::Stdout.into(),
            Self::Stderr => wire::Stream::Stderr.into(),
            Self::Steps => wire::Stream::Steps.into(),
        }
    }

    /// Reads the value of a wire message; `None` for numbers this build does not know.
    #[must_use]
    pub fn from_wire(value: i32) -> Option<Self> {
        match wire::Stream::try_from(value).ok()? {
            wire::Stream::Stdout => Some(Self::Stdout),
            wire::Stream::Stderr => Some(Self::Stderr),
            wire::Stream::Steps => Some(Self::Steps),
            wire::Stream::Unspecified => None,
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StreamName {
    type Err = UnknownStream;

    fn from_str(text: &str) -> Result<Self, UnknownStream> {
        Self::ALL.into_iter().find(|stream| stream.as_str() == text).ok_or(UnknownStream)
    }
}

/// A text names no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream is one of stdout, stderr, steps")]
pub struct UnknownStream;
