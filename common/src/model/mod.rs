//! Domain words both sides share: the phases of a command and the names of its streams.

mod phase;
mod stream;

pub use phase::{IllegalMove, Outcome, Phase, PhaseEvent};
pub use stream::StreamName;
