//! The units, started for real: a small Debian with systemd as its first process, on which the agent is killed,
//! restarted and replaced while commands run. They must not notice. When the machine itself goes down, they end and are
//! told of.
//!
//! ```text
//! survival.rs       one command, whatever happens to the daemons
//! adoption.rs       a hundred commands, whatever happens to the agent's unit
//! power.rs          shutdown and power failure
//! crowd.rs          many commands in a guest, and what must hold of each
//! ground.rs         whether this machine can do it; prepare-tree.sh makes the tree once, below the target folder
//! guest.rs          boots it with everything written to memory only, runs lines in it, ends it
//! install.sh        installs Paprika in the guest, as docs/install.md says
//! ```
//! A machine that cannot do this (not root, no debootstrap, no mirror) says so: a `NOT RUN:` line in the output and
//! in `tmp/not-run/` below the target folder, which `scripts/test` prints in its summary.

mod adoption;
mod power;
mod survival;

mod crowd;
mod ground;
mod guest;
