//! Execution from outside: what operators see of isolation, guards, pauses, what is left behind and what is lost, with
//! every daemon a process.
//!
//! ```text
//! rungs      a house on each rung of the ladder of isolation
//! isolation  agents and commands say how well they are held
//! guards     over HTTP, on each rung
//! kept       what was allowed to stay, through restarts of its agent
//! paused     through restarts of agent and manager
//! lost       the agent's state directory is gone while commands run
//! spinners   all processors busy: nobody misses a sign of life
//! ```

mod rungs;

mod guards;
mod isolation;
mod kept;
mod lost;
mod paused;
mod spinners;
