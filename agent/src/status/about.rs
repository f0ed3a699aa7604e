//! What an agent says of itself at its start, for whoever looks at its state directory: the file `about`. Never read by
//! the agent, so that nothing depends on it; a missing or unreadable one is an agent of before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::shim::process;

/// The file in the state directory.
pub(crate) const FILE: &str = "about";
/// Version of its content.
const VERSION: u32 = 1;

/// One start of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) v: u32,
    pub(crate) agent: String,
    pub(crate) version: String,
    pub(crate) pid: i32,
    /// When the kernel made that process, in clock ticks since boot.
    pub(crate) start_time: u64,
    pub(crate) boot_id: String,
    /// Wall clock, Unix milliseconds.
    pub(crate) since_ms: u64,
    pub(crate) isolation: String,
    /// The word in the configuration that would demand what was found.
    pub(crate) rung: String,
    /// The folder of the commands' cgroups; none: best effort.
    #[serde(default)]
    pub(crate) cgroup: Option<PathBuf>,
    /// Controllers of version 1 that set limits, with their folders.
    #[serde(default)]
    pub(crate) controllers: Vec<(String, PathBuf)>,
    pub(crate) max_running: u32,
    /// Bytes; 0: none is wanted.
    pub(crate) reserve: u64,
}

impl About {
    /// Fills in what this process knows of itself.
    pub(crate) fn of_this_process(about: Self) -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        Self {
            v: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid,
            start_time: process::stat(pid).map_or(0, |stat| stat.start_time),
            since_ms: common::clock::unix_ms(),
            ..about
        }
    }

    /// Replaces what the last agent said. Not synced: after a crash of the machine no agent runs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let staged = state_dir.join("about.new");
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let content = serde_json::to_vec(self).map_err(io::Error::other)?;
        io::Write::write_all(&mut common::durable::create_new(&staged)?, &content)?;
        fs::rename(staged, state_dir.join(FILE))
    }

    /// Reads what the agent of a directory said last.
    pub(crate) fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(state_dir.join(FILE)).ok()?).ok()
    }

    /// Tells whether that process is the one that lives under this number now.
    pub(crate) fn is_alive(&self) -> bool {
        process::boot_id().is_ok_and(|boot| boot == self.boot_id)
            && process::stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time)
    }
}
