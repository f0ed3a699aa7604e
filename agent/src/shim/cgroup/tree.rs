//! Folders of cgroups of either version: making, listing, signalling, removing. Knows nothing of commands.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A cgroup whose last process is just exiting is busy for a moment.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);
/// How often a signal is given to processes that were not there the time before.
const SIGNAL_ROUNDS: u32 = 8;

/// Makes the cgroup of a command with a leaf, if they are not there yet; answers the leaf.
pub(crate) fn make_leaf(command: &Path, leaf: &str) -> io::Result<PathBuf> {
    let path = command.join(leaf);
    make(command)?;
    make(&path)?;
    Ok(path)
}

/// Makes one cgroup; there already is fine.
pub(super) fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // Somebody tidied up an empty base under us.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(path),
        other => other,
    }
}

/// Opens a cgroup so that a process can be born in it.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Moves this process; slow, see the folder's map (`cgroup`).
pub(crate) fn join(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), "0")
}

/// Tells whether anything lives in the cgroup or below it. A cgroup that is gone is empty.
#[must_use]
pub fn populated(path: &Path) -> bool {
    match number(&path.join("cgroup.events"), "populated") {
        Some(value) => value != 0,
        // Version 1 has no such file.
        None => !processes(path).is_empty(),
    }
}

/// The processes in the cgroup and below it.
#[must_use]
pub(crate) fn processes(path: &Path) -> Vec<Pid> {
    let mut found: Vec<Pid> = Vec::new();
    for folder in tree(path) {
        match fs::read_to_string(folder.join("cgroup.procs")) {
            Ok(text) => found.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?))),
            // A threaded cgroup lists threads only; a process with several stands there several times.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let text = fs::read_to_string(folder.join("cgroup.threads")).unwrap_or_default();
                found.extend(text.lines().filter_map(process_of));
            }
            Err(_) => {}
        }
    }
    found.sort_unstable_by_key(|pid| pid.as_raw_pid());
    found.dedup();
    found
}

/// The process that a thread belongs to.
fn process_of(thread: &str) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    Pid::from_raw(line.trim().parse().ok()?)
}

/// Tells whether a process lives; one that only waits to be collected does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    crate::shim::process::stat(pid).is_some_and(|stat| !stat.zombie)
}

/// Gives signals to every process in the cgroup and below it, also to those that appear meanwhile.
pub(crate) fn signal(path: &Path, signals: &[Signal]) {
    let mut reached = Vec::new();
    for _ in 0..SIGNAL_ROUNDS {
        // A pid may have a new owner by the time it is opened; one that is listed again afterwards is ours.
        let opened: Vec<_> = processes(path)
            .into_iter()
            .filter(|pid| !reached.contains(pid))
            .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
            .collect();
        if opened.is_empty() {
            return;
        }
        let still = processes(path);
        for (pid, handle) in opened {
            if still.contains(&pid) {
                for signal in signals {
                    // Gone already: fine.
                    let _ = pidfd_send_signal(&handle, *signal);
                }
            }
            reached.push(pid);
        }
    }
}

/// Removes a cgroup and all below it, deepest first; `false` when one is still in use.
pub(crate) fn remove_tree(path: &Path) -> bool {
    let mut gone = true;
    for folder in tree(path).iter().rev() {
        gone &= remove_one(folder);
    }
    gone
}

fn remove_one(folder: &Path) -> bool {
    for attempt in 1..=REMOVE_TRIES {
        match fs::remove_dir(folder) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < REMOVE_TRIES && !populated(folder) => {
                rest(REMOVE_PAUSE);
            }
            Err(_) => return false,
        }
    }
    false
}

/// Waits where the kernel has no event to wait for.
#[expect(clippy::disallowed_methods, reason = "in the shim or the blocking pool; the kernel has no event for it")]
pub(super) fn rest(pause: Duration) {
    thread::sleep(pause);
}

/// The cgroup and all below it, parents before children.
pub(super) fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        next += 1;
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        found.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found
}

/// A number in a file of `key value` lines.
pub(super) fn number(path: &Path, key: &str) -> Option<u64> {
    // One page is enough for every such file; reading to the end would cost two more calls.
    let mut buffer = [0; 4096];
    let got = File::open(path).ok()?.read(&mut buffer).ok()?;
    let text = std::str::from_utf8(buffer.get(..got)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
