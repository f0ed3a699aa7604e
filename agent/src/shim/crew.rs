//! Everything a command runs: who of it lives, how it is asked to stop, held still, killed.
//!
//! The shim is the subreaper of all of it, so "no children left" means that nothing of it lives, wherever it went;
//! the cgroup is what makes killing and pausing quick and complete. Without one everything that descends from the shim
//! is stopped first and killed then: what is stopped does not fork away.

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group};

use super::cgroup::{self, Pen, Rung};
use super::process::{self, Known};
use super::signals;

/// The processes of one command.
pub(super) struct Crew {
    /// The leaf `work`; none: best effort.
    pen: Option<Pen>,
    main: Pid,
    /// How the main process ended.
    pub(super) status: Option<WaitStatus>,
    gone: bool,
    /// Processes that had left the cgroup were found and killed.
    pub(super) escaped: bool,
    /// It was killed once.
    killed: bool,
    /// It was frozen and not thawed since.
    held: bool,
    /// Best effort: who was stopped by us.
    stopped: Vec<Known>,
}

impl Crew {
    pub(super) fn new(pen: Option<Pen>, main: Pid) -> Self {
        Self { pen, main, status: None, gone: false, escaped: false, killed: false, held: false, stopped: Vec::new() }
    }

    /// Another process takes the place of the main one, which has ended.
    pub(super) fn next_main(&mut self, main: Pid) {
        self.main = main;
        self.status = None;
        self.gone = false;
    }

    /// Collects the dead.
    pub(super) fn reap(&mut self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if pid == self.main {
                        self.status = Some(status);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CHILD) => {
                    self.gone = !self.lives_in_cgroup();
                    return;
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Tells whether nothing of it lives.
    pub(super) fn gone(&self) -> bool {
        self.gone
    }

    /// The processes that live, by number.
    pub(super) fn alive(&self) -> Vec<i32> {
        let mut found = process::descendants(getpid().as_raw_pid());
        if let Some(pen) = &self.pen {
            found.extend(pen.processes().into_iter().map(Pid::as_raw_pid).filter(|pid| cgroup::is_alive(*pid)));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Asks it to end by the signal of that number, 0: TERM. What was stopped or frozen is woken to hear it.
    ///
    /// With `only_main` the others hear nothing, unless the main process has ended already.
    pub(super) fn ask(&mut self, signal: u32, only_main: bool) {
        let signals = [signals::numbered(signal).unwrap_or(Signal::TERM), Signal::CONT];
        match &self.pen {
            // Not collected yet: the number is its own.
            _ if only_main && self.status.is_none() => {
                for signal in signals {
                    let _ = kill_process(self.main, signal);
                }
            }
            Some(pen) => pen.signal(&signals),
            None => {
                if self.status.is_none() {
                    for signal in signals {
                        let _ = kill_process_group(self.main, signal);
                    }
                }
                // A second TERM could interrupt what the first one began: who is in the group has heard it.
                let group = self.main.as_raw_pid();
                let heard = self.status.is_none();
                process::signal_descendants_where(getpid().as_raw_pid(), &signals, |stat| {
                    !heard || stat.group != group
                });
            }
        }
        self.thaw();
    }

    /// Kills everything, once; to be repeated until it is gone.
    pub(super) fn kill(&mut self) {
        match &self.pen {
            Some(pen) => pen.kill(),
            None => {
                process::kill_descendants(getpid().as_raw_pid());
                // They are dead or dying: nobody is left to be woken.
                self.stopped.clear();
            }
        }
        // Frozen work of version 1 dies when it is thawed.
        self.thaw();
        // Not at the first time while something lives there: nearly always it is just dying.
        if std::mem::replace(&mut self.killed, true) || !self.lives_in_cgroup() {
            self.kill_escaped();
        }
    }

    /// Holds everything where it stands; `false` when something still moves: look with [`Crew::frozen`] again.
    pub(super) fn freeze(&mut self) -> bool {
        self.held = true;
        match &self.pen {
            Some(pen) => pen.freeze(),
            None => process::stop_descendants(getpid().as_raw_pid(), &mut self.stopped),
        }
    }

    /// Tells whether everything stands still because it was frozen.
    pub(super) fn frozen(&self) -> bool {
        if !self.held {
            return false;
        }
        match &self.pen {
            Some(pen) => pen.frozen(),
            None => {
                let still = |pid| process::stat(pid).is_none_or(|stat| stat.stopped || stat.zombie);
                process::descendants(getpid().as_raw_pid()).into_iter().all(still)
            }
        }
    }

    /// Tells whether what is frozen stays so by itself: signals alone can be undone by anybody.
    pub(super) fn stays_frozen(&self) -> bool {
        self.pen.is_some()
    }

    /// Lets everything go on that was frozen.
    pub(super) fn thaw(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        match &self.pen {
            Some(pen) => pen.thaw(),
            None => process::wake(&std::mem::take(&mut self.stopped)),
        }
    }

    /// Kills descendants that are not in the command's cgroup any more: they are ours by birth, wherever they went.
    fn kill_escaped(&mut self) {
        let Some(pen) = &self.pen else { return };
        let found = process::descendants(getpid().as_raw_pid());
        if found.is_empty() {
            return;
        }
        // A process that is just ending is still listed under its cgroup; only one that is elsewhere has escaped. Nothing
        // but the very leaf counts: names that merely hold ours, and the shim's own leaf, are elsewhere.
        let parts: Vec<_> =
            pen.path().components().rev().take(2).map(|part| part.as_os_str().to_string_lossy()).collect();
        let own: String = parts.iter().rev().map(|part| format!("/{part}")).collect();
        let within = |path: &str| path.ends_with(&own) || path.contains(&format!("{own}/"));
        let controller = (pen.rung() == Rung::V1).then_some("freezer");
        let elsewhere = |pid: &i32| process::cgroup(*pid, controller).is_some_and(|path| !within(&path));
        self.escaped |= found.iter().any(elsewhere);
        process::kill_descendants(getpid().as_raw_pid());
    }

    fn lives_in_cgroup(&self) -> bool {
        self.pen.as_ref().is_some_and(Pen::populated)
    }
}
