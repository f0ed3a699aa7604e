//! One cgroup and the processes in it: freezing, thawing, killing, by what the kernel offers there.
//!
//! ```text
//! v2          cgroup.kill; threaded cgroups refuse it and are treated as the next
//! v2-freezer  cgroup.freeze, wait for `frozen`, signal each process, thaw; again until nothing lives
//! v1          freezer.state, the same; a frozen process of version 1 dies when it is thawed
//! ```

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};

use super::base::Rung;
use super::tree::{self, number, populated, rest};
use crate::limits::{FREEZE_WITHIN, FROZEN_LOOK, KILL_AGAIN};

/// A cgroup whose processes can be stopped together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pen {
    path: PathBuf,
    rung: Rung,
}

impl Pen {
    /// The cgroup at `path`, to be treated as `rung` says.
    #[must_use]
    pub fn new(path: PathBuf, rung: Rung) -> Self {
        Self { path, rung }
    }

    /// The cgroup at `path`, to be treated by what its files say.
    #[must_use]
    pub fn found(path: PathBuf) -> Self {
        let rung = if path.join("freezer.state").exists() { Rung::V1 } else { Rung::V2 };
        Self { path, rung }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How its processes are held.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Tells whether anything lives in it or below it.
    #[must_use]
    pub fn populated(&self) -> bool {
        populated(&self.path)
    }

    /// The processes in it and below it.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        tree::processes(&self.path)
    }

    /// Gives signals to every process in it and below it, also to those that appear meanwhile.
    pub fn signal(&self, signals: &[Signal]) {
        tree::signal(&self.path, signals);
    }

    /// Kills everything in it and below it, once.
    pub fn kill(&self) {
        if self.rung == Rung::V2 && fs::write(self.path.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Frozen, what is listed cannot fork away from the signal.
        self.freeze();
        self.signal(&[Signal::KILL]);
        // The command may have frozen what it made below; in version 1 that does not die before it is thawed.
        for folder in tree::tree(&self.path) {
            thaw(&folder, self.rung);
        }
    }

    /// Stops everything where it stands; `false` when something still moves after a fifth of a second.
    pub fn freeze(&self) -> bool {
        let deadline = Instant::now() + FREEZE_WITHIN;
        if self.rung == Rung::V1 {
            // Written again each time: a process that was forked meanwhile is frozen by that.
            while fs::write(self.path.join("freezer.state"), "FROZEN").is_ok() {
                if self.frozen() {
                    return true;
                }
                if Instant::now() >= deadline {
                    return false;
                }
                rest(FROZEN_LOOK);
            }
            return false;
        }
        let Ok(events) = File::open(self.path.join("cgroup.events")) else { return false };
        if fs::write(self.path.join("cgroup.freeze"), "1").is_err() {
            return false;
        }
        while !self.frozen() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            wait_for_change(&events, left, || self.frozen());
        }
        true
    }

    /// Tells whether everything stands still because it was frozen.
    #[must_use]
    pub fn frozen(&self) -> bool {
        match self.rung {
            Rung::V1 => fs::read_to_string(self.path.join("freezer.state")).is_ok_and(|state| state.trim() == "FROZEN"),
            Rung::V2 | Rung::V2Freezer => number(&self.path.join("cgroup.events"), "frozen") == Some(1),
        }
    }

    /// Lets everything go on.
    pub fn thaw(&self) {
        thaw(&self.path, self.rung);
    }

    /// Kills until nothing lives any more; answers what survived until the deadline.
    #[must_use]
    pub fn kill_all(&self, within: Duration) -> Vec<Pid> {
        let deadline = Instant::now() + within;
        let events = File::open(self.path.join("cgroup.events"));
        while self.populated() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.processes();
            }
            self.kill();
            let again = Instant::now() + left.min(KILL_AGAIN);
            match &events {
                Ok(events) => wait_for_change(events, left.min(KILL_AGAIN), || !self.populated()),
                Err(_) => {
                    while self.populated() && Instant::now() < again {
                        rest(FROZEN_LOOK);
                    }
                }
            }
        }
        Vec::new()
    }
}

/// Lets one cgroup go on; what is gone is thawed.
fn thaw(path: &Path, rung: Rung) {
    drop(match rung {
        Rung::V1 => fs::write(path.join("freezer.state"), "THAWED"),
        Rung::V2 | Rung::V2Freezer => fs::write(path.join("cgroup.freeze"), "0"),
    });
}

/// Waits until `cgroup.events` changes, unless what is waited for has come already.
fn wait_for_change(events: &File, within: Duration, done: impl Fn() -> bool) {
    // The kernel reports a change since the file was opened or read.
    let mut buffer = [0; 256];
    if events.read_at(&mut buffer, 0).is_err() || done() {
        return;
    }
    let within = Timespec { tv_sec: within.as_secs().cast_signed(), tv_nsec: within.subsec_nanos().into() };
    let _ = poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&within));
}

/// Kills everything in the cgroup at `path` and below it; `false` when something survived until the deadline.
#[must_use]
pub fn kill_all(path: &Path, within: Duration) -> bool {
    Pen::found(path.to_owned()).kill_all(within).is_empty()
}
