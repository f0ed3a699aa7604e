//! Promise 1 in a storm: kill -9 at every named crash point of manager, agent and shim, under load.
//!
//! ```text
//! points   the names, read from the sources so that none is forgotten, handed out in turn
//! load     commands that leave traces, and what became of them
//! storm    managers and agents are killed two hundred times: nothing may even be interrupted
//! shims    shims are killed: each command ends once, with evidence
//! ```

mod points;

mod load;

mod storm;

mod shims;
