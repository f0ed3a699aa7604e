//! Bytes of commands: appended by offset, read by offset. A byte never changes; beyond the quota of its stream the
//! middle becomes a gap.
//!
//! ```text
//! chunks ─► append ─► rows of `chunks`, or of `gaps`  ◄─ read
//!                 └─► evict: over the quota (looked up by `quota`) the oldest rows behind the head become a gap
//! ```
//! Every offset below the length of a stream belongs to exactly one row of `chunks` or of `gaps`.

mod append;
mod evict;
mod forget;
mod quota;
mod read;

pub use append::Appending;
pub(super) use forget::{forget, forget_beyond};
