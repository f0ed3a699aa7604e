//! Everything a command runs: who of it lives, how it is asked to stop, how it is killed.
//!
//! The shim is the subreaper of all of it, so "no children left" means that nothing of it lives, wherever it went;
//! the cgroup is what makes killing quick and complete.

use std::path::PathBuf;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process_group};

use super::{cgroup, process};

/// The processes of one command.
pub(super) struct Crew {
    /// The leaf `work`; none: best effort.
    work: Option<PathBuf>,
    main: Pid,
    /// How the main process ended.
    pub(super) status: Option<WaitStatus>,
    gone: bool,
    /// Processes that had left the cgroup were found and killed.
    pub(super) escaped: bool,
}

impl Crew {
    pub(super) fn new(work: Option<PathBuf>, main: Pid) -> Self {
        Self { work, main, status: None, gone: false, escaped: false }
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

    /// Asks everything to end; what is stopped is woken to hear it.
    pub(super) fn ask(&self) {
        let signals = [Signal::TERM, Signal::CONT];
        match &self.work {
            Some(work) => cgroup::signal(work, &signals),
            None => {
                if self.status.is_none() {
                    for signal in signals {
                        let _ = kill_process_group(self.main, signal);
                    }
                }
                // A second TERM could interrupt what the first one began: who is in the group has heard it.
                self.signal_outside(&signals);
            }
        }
    }

    /// Kills everything, once; to be repeated until it is gone.
    pub(super) fn kill(&mut self) {
        match &self.work {
            Some(work) => cgroup::kill(work),
            None => {
                // The group's number is ours as long as the main process was not collected.
                if self.status.is_none() {
                    let _ = kill_process_group(self.main, Signal::KILL);
                }
                process::signal_descendants(getpid().as_raw_pid(), &[Signal::KILL]);
            }
        }
        if self.work.is_some() && !self.lives_in_cgroup() {
            self.kill_escaped();
        }
    }

    fn signal_outside(&self, signals: &[Signal]) {
        let group = self.main.as_raw_pid();
        process::signal_descendants_where(getpid().as_raw_pid(), signals, |stat| stat.group != group);
    }

    /// Kills descendants that are not in the command's cgroup any more.
    fn kill_escaped(&mut self) {
        let Some(work) = self.work.as_deref() else { return };
        // A process that is just ending may still be listed as ours; only one that is elsewhere has escaped.
        let Some(mark) = work.parent().and_then(|group| group.file_name()) else { return };
        let mark = mark.to_string_lossy();
        let away = process::descendants(getpid().as_raw_pid())
            .into_iter()
            .any(|pid| process::cgroup(pid).is_some_and(|path| !path.contains(mark.as_ref())));
        if away {
            self.escaped = true;
            process::signal_descendants(getpid().as_raw_pid(), &[Signal::KILL]);
        }
    }

    fn lives_in_cgroup(&self) -> bool {
        self.work.as_deref().is_some_and(cgroup::populated)
    }
}
