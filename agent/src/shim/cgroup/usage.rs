//! What the kernel counted for a command, from the files of either version. Read before a cgroup is removed.

use std::fs;
use std::path::Path;

use super::tree::{number, tree};

/// What does not fit any more when the kernel kills for it: it asks for at most 32 KiB at once before it does.
const LAST_CHARGE: u64 = 32 * 1024;

/// How often the kernel killed for memory, and how often because a limit of the command's own was hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Oom {
    /// Processes killed.
    pub(crate) kills: u64,
    /// The limit was hit and nothing could be freed. Not counted when the whole host, or a cgroup above, was short.
    pub(crate) own: u64,
}

impl Oom {
    /// Reads version 2 or, where it has no memory controller, the folders of version 1. None: nobody counts.
    pub(crate) fn read(work: &Path, folders: &[impl AsRef<Path>]) -> Option<Self> {
        // A command without limits of its own has the counters one level up, where only the shim is counted besides.
        let events = [Some(work), work.parent()].into_iter().flatten().map(|folder| folder.join("memory.events"));
        for events in events {
            if let Some(kills) = number(&events, "oom_kill") {
                return Some(Self { kills, own: number(&events, "oom").unwrap_or(0) });
            }
        }
        folders.iter().find_map(|folder| Self::version1(folder.as_ref()))
    }

    /// Version 1 counts for each cgroup alone: those that the command made are added up.
    fn version1(folder: &Path) -> Option<Self> {
        number(&folder.join("memory.oom_control"), "oom_kill")?;
        let mut sum = Self::default();
        for folder in tree(folder) {
            sum.kills += number(&folder.join("memory.oom_control"), "oom_kill").unwrap_or(0);
            sum.own += ["memory", "memory.memsw"].into_iter().map(|what| hits(&folder, what)).max().unwrap_or(0);
        }
        Some(sum)
    }

    /// What happened since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { kills: self.kills.saturating_sub(before.kills), own: self.own.saturating_sub(before.own) }
    }
}

/// How often a limit of version 1 was hit. Kernels that do not count it any more still keep the peak.
fn hits(folder: &Path, what: &str) -> u64 {
    let read = |file: &str| single(&folder.join(format!("{what}.{file}")));
    let full = match (read("max_usage_in_bytes"), read("limit_in_bytes")) {
        (Some(peak), Some(limit)) => peak.saturating_add(LAST_CHARGE) >= limit,
        _ => false,
    };
    read("failcnt").unwrap_or(0).max(full.into())
}

/// The CPU time in microseconds. Version 2 counts it without a controller.
pub(crate) fn cpu_us(work: &Path) -> Option<u64> {
    number(&work.join("cpu.stat"), "usage_usec")
}

/// The peak of memory in bytes, where a controller is on.
pub(crate) fn memory_peak(work: &Path, folders: &[impl AsRef<Path>]) -> Option<u64> {
    let of = |folder: &Path| single(&folder.join("memory.max_usage_in_bytes"));
    single(&work.join("memory.peak")).or_else(|| folders.iter().find_map(|folder| of(folder.as_ref())))
}

/// Most processes and threads at once, where a controller is on.
pub(crate) fn tasks_peak(work: &Path, folders: &[impl AsRef<Path>]) -> Option<u64> {
    let of = |folder: &Path| single(&folder.join("pids.peak"));
    of(work).or_else(|| folders.iter().find_map(|folder| of(folder.as_ref())))
}

/// Bytes read from and written to devices, where the controller is on.
pub(crate) fn io_bytes(work: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(work.join("io.stat")).ok()?;
    let sum = |key: &str| {
        let values = text.split_ascii_whitespace().filter_map(|field| field.strip_prefix(key)?.parse::<u64>().ok());
        values.fold(0, u64::saturating_add)
    };
    Some((sum("rbytes="), sum("wbytes=")))
}

/// A file that holds one number.
fn single(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
