//! Domain words both sides share: the phases of a command, the names of its streams, and what was observed of its end.

mod flag;
mod phase;
mod stream;

pub use flag::Flag;
pub use phase::{IllegalMove, Outcome, Phase, PhaseEvent};
pub use stream::StreamName;
