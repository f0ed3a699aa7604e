//! Work that nobody asks for: it has no input, wakes by a timer, and reads the truth each time.

pub mod rounds;
pub mod watchdog;

pub use rounds::{Rounds, run};
