//! What the agent keeps about its commands: one directory each, and a tombstone after it.
//!
//! ```text
//! accept ──► commands/<uid> ──► shim appends START, streams, END ──► shipped ──► tombstone ──► directory gone
//!              │   ▲
//!              ▼   │ request (cancel, pause), wake; status says what a shim is at
//!            recover: the shim is gone, what does the record say?
//! ```
//!
//! The files are the truth; nothing in here keeps a second one in memory. All functions block: callers on a runtime
//! use its blocking pool.

pub mod layout;

pub mod end;
pub mod record;

pub mod accept;
pub mod kept;
pub mod recover;
pub mod request;
pub mod reserve;
pub mod seals;
pub mod segment;
pub mod status;
pub mod tombstones;

mod file_error;

pub use end::{Evidence, Failure, GapRange, SegmentEnd, StreamEnd};
pub(crate) use end::{MAX_SEGMENTS, narrow};
pub use file_error::FileError;
pub(crate) use file_error::{Context, is_shortage};
pub use layout::{StateDir, StateDirError};
pub use record::{End, History, RecordError, RecordLock, Spec, Start};
