//! Promise 3 against the zoo: every badly behaved program, cancelled, timed out or ended by itself, the worst of them also
//! while paused and as guards, on every rung of the ladder of isolation. What is left is looked for in all of `/proc` by the programs' own marks, never by asking the agent.
//!
//! ```text
//! animals  who is let out, and how its main process has to end
//! rungs    what holds them: v2, v2 without its kill, the freezer of v1, nothing but parentage
//! round    one animal, one end, one look at what is left
//! ends     the tests: all animals on one rung, PAPRIKA_ZOO_RUNS times (5)
//! ```

mod animals;
mod rungs;

mod round;

mod ends;
