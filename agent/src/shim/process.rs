//! What `/proc` says about processes: who is whose child, since when, in which boot.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::id::Uid;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable by which processes of a command are known when nothing else tells.
pub(crate) const UID_VARIABLE: &str = "PAPRIKA_COMMAND_UID";

/// One line of `/proc/<pid>/stat`, as far as it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The parent.
    pub parent: i32,
    /// The process group.
    pub group: i32,
    /// The session.
    pub session: i32,
    /// Clock ticks after boot.
    pub start_time: u64,
    /// It is dead and only waits for its parent.
    pub zombie: bool,
}

/// The id of this boot.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn boot_id() -> std::io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Looks at a process; `None` when there is none of that number.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The living processes that descend from `root`, without itself.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let all: Vec<(i32, Stat)> = pids().filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        found.extend(all.iter().filter(|(pid, stat)| stat.parent == parent && *pid != root).map(|(pid, _)| *pid));
    }
    found.retain(|pid| *pid != root && all.iter().any(|(other, stat)| other == pid && !stat.zombie));
    found
}

/// Gives signals to the living descendants of `root`; answers how many there were.
pub(crate) fn signal_descendants(root: i32, signals: &[Signal]) -> usize {
    signal_found(signals, || descendants(root))
}

/// The same for those that are `wanted`.
pub(crate) fn signal_descendants_where(root: i32, signals: &[Signal], wanted: impl Fn(&Stat) -> bool) -> usize {
    signal_found(signals, || {
        let mut found = descendants(root);
        found.retain(|pid| stat(*pid).is_some_and(|stat| wanted(&stat)));
        found
    })
}

/// The path of a process in the tree of version 2.
pub(crate) fn cgroup(pid: i32) -> Option<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    table.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned))
}

/// Kills what a command without a cgroup left behind when its shim is gone: its main process, that one's session, and whatever carries its uid
/// in the environment. Answers how many still live at the deadline.
#[expect(
    clippy::disallowed_methods,
    reason = "in the blocking pool, after a kill, of processes that are not our children"
)]
pub(crate) fn kill_leftovers(uid: Uid, main: Option<i32>, within: Duration) -> usize {
    let deadline = Instant::now() + within;
    let mark = format!("{UID_VARIABLE}={uid}").into_bytes();
    let ours = i32::try_from(std::process::id()).unwrap_or(0);
    let find = || -> Vec<i32> {
        pids()
            .filter(|pid| *pid != ours)
            .filter(|pid| {
                let Some(stat) = stat(*pid) else { return false };
                // The main process may not have made its session yet.
                !stat.zombie && (Some(*pid) == main || Some(stat.session) == main || carries(*pid, &mark))
            })
            .collect()
    };
    loop {
        let found = signal_found(&[Signal::KILL], find);
        if found == 0 || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn carries(pid: i32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark))
}

/// Signals through handles; only what is found again after the handle was opened: a pid may change its owner.
fn signal_found(signals: &[Signal], find: impl Fn() -> Vec<i32>) -> usize {
    let opened: Vec<_> = find()
        .into_iter()
        .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?)))
        .collect();
    if opened.is_empty() {
        return 0;
    }
    let still = find();
    let mut count = 0;
    for (pid, handle) in opened {
        if still.contains(&pid) {
            count += 1;
            for signal in signals {
                // Gone already: fine.
                let _ = pidfd_send_signal(&handle, *signal);
            }
        }
    }
    count
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir(Path::new("/proc"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parse_stat(line: &[u8]) -> Option<Stat> {
    // The name in brackets may hold anything, brackets and newlines included; what follows the last one is numbers.
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_cannot_fool_the_parser() {
        let line = b"42 (a) S 1 9) Z 7 8 9 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1\n";
        let expected = Stat { parent: 7, group: 8, session: 9, start_time: 777, zombie: true };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat(b""), None);
        assert_eq!(parse_stat(b"1 (x) R"), None);
    }

    #[test]
    fn this_process_is_found_among_the_descendants_of_its_parent() {
        let ours = std::process::id().cast_signed();
        let parent = stat(ours).map(|stat| stat.parent);
        assert!(parent.is_some_and(|parent| descendants(parent).contains(&ours)));
        assert!(boot_id().is_ok_and(|id| id.len() == 36));
    }
}
