//! From a token to an agent, and how its certificate is kept alive, through the doors that people use.

mod hosts;

mod away;
mod clocks;
mod crashes;
mod crowd;
mod joining;
mod renewing;
