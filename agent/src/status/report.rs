//! What a look at a state directory found: also the JSON of `-o json`, whose keys are stable.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    pub(super) state_dir: PathBuf,
    /// The id that was made with the directory; none: no agent ever ran here.
    pub(super) journal: Option<String>,
    pub(super) agent: AgentReport,
    pub(super) disk: Disk,
    pub(super) commands: Vec<CommandReport>,
    /// Delivered directories that stay for a look.
    pub(super) kept: u64,
    /// Directories whose record could not be understood.
    pub(super) quarantined: u64,
    /// Directories below `commands/` that could not be read just now, with the reason.
    pub(super) unreadable: Vec<Unreadable>,
}

/// The agent that runs, or ran last.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct AgentReport {
    /// Somebody holds the lock of the directory.
    pub(super) running: bool,
    /// What follows is what the agent said at its last start; none: it never said anything (an agent before 0.2).
    pub(super) pid: Option<i32>,
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    /// Wall clock of that start, Unix milliseconds.
    pub(super) since_ms: Option<u64>,
    pub(super) isolation: Option<String>,
    pub(super) rung: Option<String>,
    pub(super) cgroup: Option<PathBuf>,
    /// Controllers of version 1 that set limits, and where.
    pub(super) controllers: BTreeMap<String, PathBuf>,
    pub(super) max_running: Option<u32>,
}

/// The disk below the state directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Disk {
    pub(super) free: Option<u64>,
    pub(super) total: Option<u64>,
    /// Bytes that are kept back for results now.
    pub(super) reserve: u64,
    /// Bytes that should be; none: the agent never said so.
    pub(super) reserve_wanted: Option<u64>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CommandReport {
    pub(super) id: u64,
    pub(super) uid: String,
    pub(super) operation: String,
    pub(super) phase: Phase,
    /// Unix milliseconds: of the phase where that is known, else of its start or acceptance.
    pub(super) since_ms: u64,
    /// The main process; none: it has none, or it has ended.
    pub(super) pid: Option<u32>,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) isolation: Option<String>,
    /// Bytes written so far, by stream.
    pub(super) streams: BTreeMap<&'static str, u64>,
    /// A process watches it.
    pub(super) shim_alive: bool,
    /// Killed and not dead.
    pub(super) stuck: Vec<i32>,
    /// How it ended, where the manager does not have it yet.
    pub(super) outcome: Option<&'static str>,
}

/// Where a command stands on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    Running,
    Paused,
    Stopping,
    Accepted,
    Waiting,
    Ended,
}

impl Phase {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Accepted => "accepted",
            Self::Waiting => "waiting",
            Self::Ended => "ended",
        }
    }
}

/// One directory that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Unreadable {
    pub(super) uid: String,
    pub(super) reason: String,
}
