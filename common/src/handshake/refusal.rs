//! Why a peer is not served, and how it is told.

use std::time::Duration;

use crate::limits;
use crate::wire::Bye;
use crate::wire::bye::Code;
use crate::wire::frame::Body;

/// Why a peer is not served. It learns the code and the reason, nothing of our insides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// What the peer's program decides by.
    pub code: Code,
    /// What its operator reads.
    pub reason: String,
    /// When it makes sense to come back.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without a hint when to come back.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), retry_after: None }
    }

    /// Adds when it makes sense to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The frame that tells the peer; the reason is cut to its limit (protocol R-BYE-2).
    #[must_use]
    pub fn bye(&self) -> Body {
        let mut reason = self.reason.clone();
        truncate(&mut reason, limits::MAX_TEXT_BYTES);
        Body::Bye(Bye {
            code: self.code.into(),
            reason,
            retry_after_ms: self.retry_after.map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX)),
        })
    }
}

/// Cuts a text to at most `limit` bytes at a character border.
pub fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        let cut = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
    }
}
