//! Where the processes of one command live, as the shim sees it: limits, birth, accounting.
//!
//! The agent decides where that is (`cgroup`) and says it in the environment (`launch`). Nothing here fails a command:
//! what cannot be had is a flag, or a refusal when the command insists on a limit.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use common::model::Flag;
use common::wire::CommandLimits;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use rustix::process::Pid;

use super::cgroup::{self, Oom, Pen, Place, Rung};
use super::crew::Crew;
use super::launch;
use crate::commands::End;
use crate::commands::layout::SECTOR;

/// The place of one command.
pub(super) struct Fence {
    place: Option<Fenced>,
    on_foot: bool,
    folders: Vec<PathBuf>,
    /// What was counted before anything ran: an earlier shim may have left a cgroup behind.
    before: Oom,
    /// What is worth knowing about the place, for END.
    pub(super) flags: Vec<Flag>,
    /// Why there is no cgroup although one was chosen; for people who ask themselves that.
    pub(super) trouble: Option<String>,
}

/// A place with cgroups.
struct Fenced {
    place: Place,
    work: PathBuf,
}

impl Fence {
    /// Makes the place that the agent has chosen.
    pub(super) fn build() -> Self {
        Self::at(launch::place_from_env(), launch::has_to_join())
    }

    fn at(place: Option<Place>, join: bool) -> Self {
        let mut fence = Self {
            place: None,
            on_foot: false,
            folders: Vec::new(),
            before: Oom::default(),
            flags: Vec::new(),
            trouble: None,
        };
        let Some(place) = place else { return fence };
        let joined = if join && place.rung != Rung::V1 {
            cgroup::make_leaf(&place.group, "shim").and_then(|leaf| cgroup::join(&leaf))
        } else {
            Ok(())
        };
        let made = joined.map_err(|error| ("enter", error));
        match made.and_then(|()| cgroup::make_leaf(&place.group, "work").map_err(|error| ("make", error))) {
            Ok(work) => {
                fence.before = Oom::read(&work, &fence.folders).unwrap_or_default();
                fence.place = Some(Fenced { place, work });
            }
            Err((step, error)) => {
                fence.flags.push(Flag::NoCgroup);
                let group = place.group.display();
                fence.trouble = Some(format!("{step} the cgroup {group}: {error}; the command runs without one"));
            }
        }
        fence
    }

    /// How well it holds: `cgroup` or `best_effort`.
    pub(super) fn isolation(&self) -> &'static str {
        if self.place.is_some() { "cgroup" } else { "best_effort" }
    }

    /// Sets the limits; an error names what this host cannot enforce, unless the command takes what there is.
    pub(super) fn limit(&mut self, limits: &CommandLimits) -> Result<(), String> {
        let missed = match &self.place {
            Some(fenced) => {
                let done = cgroup::limit(&fenced.place, limits);
                self.folders = done.folders;
                self.before = Oom::read(&fenced.work, &self.folders).unwrap_or_default();
                done.missed
            }
            None => {
                let why = "commands run without cgroups here";
                let asked = [
                    ("memory", limits.memory_max > 0),
                    ("memory_high", limits.memory_high > 0),
                    ("cpu", limits.cpu_percent > 0),
                    ("tasks", limits.tasks > 0),
                ];
                asked.into_iter().filter(|(_, asked)| *asked).map(|(name, _)| (name, why.to_owned())).collect()
            }
        };
        if missed.is_empty() {
            return Ok(());
        }
        self.flags.push(Flag::LimitsNotEnforced);
        if limits.best_effort {
            return Ok(());
        }
        let missed: Vec<_> = missed.into_iter().map(|(name, why)| format!("{name} ({why})")).collect();
        Err(format!("this host cannot enforce: {}; `best_effort` takes what there is", missed.join(", ")))
    }

    /// The cgroup of the command, for START.
    pub(super) fn group(&self) -> Option<&Path> {
        self.place.as_ref().map(|fenced| fenced.place.group.as_path())
    }

    /// The folders of version 1 that have to be removed with the command, for START.
    pub(super) fn controllers(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The cgroup in which a process can be born; none when it has to go there on foot.
    pub(super) fn birth(&self) -> io::Result<Option<OwnedFd>> {
        match &self.place {
            Some(fenced) if !self.on_foot && fenced.place.rung != Rung::V1 => cgroup::open(&fenced.work).map(Some),
            _ => Ok(None),
        }
    }

    /// From now on processes move themselves: the kernel does not know birth in a cgroup.
    pub(super) fn on_foot(&mut self) {
        self.on_foot = true;
    }

    /// The files into which a process writes `0` before it becomes the program.
    pub(super) fn joins(&self) -> Vec<CString> {
        let by_hand = self.place.iter().filter(|fenced| self.on_foot || fenced.place.rung == Rung::V1);
        let folders = by_hand.map(|fenced| &fenced.work).chain(&self.folders);
        folders
            .filter_map(|folder| CString::new(folder.join("cgroup.procs").into_os_string().as_bytes()).ok())
            .collect()
    }

    /// The processes that live here, `main` first.
    pub(super) fn crew(&self, main: Pid) -> Crew {
        let pen = self.place.as_ref().map(|fenced| Pen::new(fenced.work.clone(), fenced.place.rung));
        Crew::new(pen, main)
    }

    /// Fills in what the kernel counted; where no controller counts, what it says about collected children.
    pub(super) fn account(&self, end: &mut End) {
        self.isolation().clone_into(&mut end.isolation);
        if let Ok(used) = getrusage(UsageWho::RUSAGE_CHILDREN) {
            let micros = |time: TimeVal| time.num_microseconds();
            let count = |number: i64| u64::try_from(number).unwrap_or_default();
            end.cpu_us = count(micros(used.user_time()).saturating_add(micros(used.system_time())));
            // The kernel counts in KiB here.
            end.memory_peak = count(used.max_rss()).saturating_mul(1024);
            end.io_read = count(used.block_reads()).saturating_mul(SECTOR);
            end.io_written = count(used.block_writes()).saturating_mul(SECTOR);
        }
        let Some(Fenced { work, .. }) = &self.place else { return };
        let folders = &self.folders;
        end.cpu_us = cgroup::cpu_us(work).unwrap_or(end.cpu_us);
        end.memory_peak = cgroup::memory_peak(work, folders).unwrap_or(end.memory_peak);
        (end.io_read, end.io_written) = cgroup::io_bytes(work).unwrap_or((end.io_read, end.io_written));
        end.tasks_peak = cgroup::tasks_peak(work, folders).unwrap_or_default();
        let oom = Oom::read(work, folders).unwrap_or_default().since(self.before);
        end.oom = oom.kills > 0;
        if end.oom && oom.own == 0 {
            end.flags.push(Flag::OomByHost.to_string());
        }
    }
}
