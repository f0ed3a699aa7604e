//! Commands as JSON, the same at every door.
//!
//! Reading order: what is asked for (`request`), values that may be secret (`value`), what it may use (`limits`), what is shown (`command`), how it is stopped
//! (`cancel`), and its bytes (`output`).

mod cancel;
mod command;
mod limits;
mod output;
mod request;
mod value;

pub use cancel::{CancelAnswer, CancelOutcome, CancelRequest};
pub use command::{
    Cancel, Command, CommandError, CommandQuery, CommandRef, Gap, JobStarted, Pause, Progress, Stream, Usage,
};
pub use limits::LimitsRequest;
pub use output::{NEXT_OFFSET, NotACursor, OutputChunk, OutputCursor};
pub use request::{CommandRequest, JobRequest};
pub use value::{SHOWN, TextOrSecret};
