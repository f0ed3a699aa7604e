//! What `/proc` says about processes: who is whose child, since when, in which boot.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::limits::{LEFT_LOOK, STOP_ROUNDS};
use common::id::Uid;
use rustix::process::{Pid, PidfdFlags, Signal, getpgrp, kill_process_group, pidfd_open, pidfd_send_signal};

/// The variable by which processes of a command are known when nothing else tells.
pub(crate) const UID_VARIABLE: &str = "PAPRIKA_COMMAND_UID";

/// What daemon and shim have: nearly immune, but after the kernel's own.
const PROTECTED: &[u8] = b"-900";

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
    /// It was stopped by a signal.
    pub stopped: bool,
    /// It waits in the kernel for something that no signal ends, such as a disk.
    pub uninterruptible: bool,
}

/// A process and when it began: a number alone may have a new owner.
pub(crate) type Known = (i32, u64);

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

/// Makes the kernel's OOM killer take others before this process; without the right to, nothing changes. Children
/// inherit it: who makes one sets its own value.
pub fn protect_from_oom() {
    drop(fs::write("/proc/self/oom_score_adj", PROTECTED));
}

/// The living processes that descend from `root`, without itself.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    family(root).into_iter().map(|(pid, _)| pid).collect()
}

fn family(root: i32) -> Vec<(i32, Stat)> {
    let all: Vec<(i32, Stat)> = pids().filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        found.extend(all.iter().filter(|(pid, stat)| stat.parent == parent && *pid != root).map(|(pid, _)| *pid));
    }
    all.into_iter().filter(|(pid, stat)| *pid != root && !stat.zombie && found.contains(pid)).collect()
}

/// Gives signals to the living descendants of `root`; answers how many there were.
pub(crate) fn signal_descendants(root: i32, signals: &[Signal]) -> usize {
    signal_found(family(root), signals)
}

/// The same for those that are `wanted`.
pub(crate) fn signal_descendants_where(root: i32, signals: &[Signal], wanted: impl Fn(&Stat) -> bool) -> usize {
    let mut found = family(root);
    found.retain(|(_, stat)| wanted(stat));
    signal_found(found, signals)
}

/// Stops the descendants of `root` where they stand, again until no new one appears; adds those that ran before.
///
/// Nothing of a fork bomb can be counted while it forks. What is stopped forks no more.
pub(crate) fn stop_descendants(root: i32, stopped: &mut Vec<Known>) -> bool {
    let mut reached = HashSet::new();
    for _ in 0..STOP_ROUNDS {
        // Each at once when it is found: one that forks and exits all the time is gone after a look at all of `/proc`.
        let mut next = vec![root];
        let mut found = 0;
        while let Some(parent) = next.pop() {
            for child in children(parent) {
                next.push(child);
                found += usize::from(stop_one(child, &mut reached, stopped));
            }
        }
        // That list may miss some, and not every kernel has it.
        for (pid, _) in family(root) {
            found += usize::from(stop_one(pid, &mut reached, stopped));
        }
        if found == 0 {
            return true;
        }
    }
    false
}

/// Kills the descendants of `root`: by groups first, and what is in none of them is stopped before it is killed, so that
/// none is born while the others die.
pub(crate) fn kill_descendants(root: i32) {
    kill_groups(family(root));
    stop_descendants(root, &mut Vec::new());
    signal_descendants(root, &[Signal::KILL]);
}

/// Kills whole groups, which the kernel does in one step that no fork escapes: also processes that are replaced by
/// their own children faster than anybody can look. All of a group is of one session, and so of one command.
///
/// The number of a group belongs to nobody else as long as one of it lives, and is not given out again within a look.
fn kill_groups(found: impl IntoIterator<Item = (i32, Stat)>) {
    let ours = getpgrp();
    let groups: HashSet<i32> = found.into_iter().map(|(_, stat)| stat.group).collect();
    for group in groups.into_iter().filter_map(Pid::from_raw).filter(|group| !group.is_init() && *group != ours) {
        // Gone already: fine.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Stops a process that was not reached before; `false`: it was, or there is nothing to stop.
fn stop_one(pid: i32, reached: &mut HashSet<Known>, stopped: &mut Vec<Known>) -> bool {
    let Some(seen) = stat(pid).filter(|stat| !stat.zombie) else { return false };
    if !reached.insert((pid, seen.start_time)) {
        return false;
    }
    if signal_found([(pid, seen)], &[Signal::STOP]) == 0 {
        // Gone meanwhile; what it forked is what the next round is for.
        return true;
    }
    // Who had stopped by itself is not ours to wake.
    if !seen.stopped {
        stopped.push((pid, seen.start_time));
    }
    true
}

/// The children of a process, as the kernel keeps them.
fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Lets processes go on that were stopped, if they still are who they were.
pub(crate) fn wake(stopped: &[Known]) {
    let still = |(pid, start): &Known| Some((*pid, stat(*pid).filter(|stat| stat.start_time == *start)?));
    signal_found(stopped.iter().filter_map(still), &[Signal::CONT]);
}

/// The cgroup of a process in the tree of version 2, or in that of a controller of version 1.
pub(crate) fn cgroup(pid: i32, controller: Option<&str>) -> Option<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroup_in(&table, controller)
}

fn cgroup_in(table: &str, controller: Option<&str>) -> Option<String> {
    table.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let wanted = match controller {
            None => controllers.is_empty(),
            Some(name) => controllers.split(',').any(|one| one == name),
        };
        wanted.then(|| path.to_owned())
    })
}

/// What of a command lives outside of cgroups when its shim is gone: its main process, that one's session, and whatever
/// carries its uid in the environment.
pub(crate) fn leftovers(uid: Uid, main: Option<i32>) -> Vec<i32> {
    left(uid, main).map(|(pid, _)| pid).collect()
}

/// Kills what a command left behind when its shim is gone; answers what still lives at the deadline.
///
/// By groups, and then stopped first, for the same reasons as [`kill_descendants`].
pub(crate) fn kill_leftovers(uid: Uid, main: Option<i32>, within: Duration) -> Vec<i32> {
    let deadline = Instant::now() + within;
    loop {
        kill_groups(left(uid, main));
        let mut reached = HashSet::new();
        for _ in 0..STOP_ROUNDS {
            let mut found = 0;
            for (pid, _) in left(uid, main) {
                found += usize::from(stop_one(pid, &mut reached, &mut Vec::new()));
            }
            if found == 0 || Instant::now() >= deadline {
                break;
            }
        }
        signal_found(left(uid, main), &[Signal::KILL]);
        let found = leftovers(uid, main);
        if found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "in the blocking pool; the dead are not our children to wait for"
        )]
        std::thread::sleep(LEFT_LOOK);
    }
}

fn left(uid: Uid, main: Option<i32>) -> impl Iterator<Item = (i32, Stat)> {
    let mark = format!("{UID_VARIABLE}={uid}").into_bytes();
    let ours = i32::try_from(std::process::id()).unwrap_or(0);
    // The main process may not have made its session yet.
    let belongs = move |pid: i32, stat: &Stat| {
        !stat.zombie && (Some(pid) == main || Some(stat.session) == main || carries(pid, &mark))
    };
    pids()
        .filter(move |pid| *pid != ours)
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .filter(move |(pid, stat)| belongs(*pid, stat))
}

fn carries(pid: i32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark))
}

/// Signals through handles: a number may change its owner between the look and the signal. What began when it was
/// found and lives after its handle was opened is what the handle means.
fn signal_found(found: impl IntoIterator<Item = (i32, Stat)>, signals: &[Signal]) -> usize {
    let mut count = 0;
    for (pid, seen) in found {
        let Some(number) = Pid::from_raw(pid) else { continue };
        let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { continue };
        if stat(pid).is_none_or(|now| now.start_time != seen.start_time) {
            continue;
        }
        count += 1;
        for signal in signals {
            // Gone already: fine.
            let _ = pidfd_send_signal(&handle, *signal);
        }
    }
    count
}

pub(crate) fn pids() -> impl Iterator<Item = i32> {
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
        stopped: matches!(*fields.first()?, "T" | "t"),
        uninterruptible: *fields.first()? == "D",
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
        let expected = Stat {
            parent: 7,
            group: 8,
            session: 9,
            start_time: 777,
            zombie: true,
            stopped: false,
            uninterruptible: false,
        };
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

    #[test]
    fn the_cgroup_of_either_version_is_found() {
        let table = "3:cpu,cpuacct:/a/b\n2:freezer:/c:d\n1:name=systemd:/e\n0::/f\n";
        assert_eq!(cgroup_in(table, None).as_deref(), Some("/f"));
        assert_eq!(cgroup_in(table, Some("freezer")).as_deref(), Some("/c:d"));
        assert_eq!(cgroup_in(table, Some("cpuacct")).as_deref(), Some("/a/b"));
        assert_eq!(cgroup_in(table, Some("memory")), None);
    }
}
