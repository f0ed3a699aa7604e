//! Shims from the outside, as the agent sees them when one does not hear: found by their words, sent on, killed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::process;

/// Lets the shim of a command's directory go on, if it was stopped or frozen together with its command's cgroup.
pub(crate) fn send_on(dir: &Path, group: Option<&Path>) {
    if let Some(group) = group {
        // The shim's own leaf and what both leaves are in; what the command runs may be paused, and stays so.
        for folder in [group.to_owned(), group.join("shim")] {
            for (file, word) in [("cgroup.freeze", "0"), ("freezer.state", "THAWED")] {
                // Each kind of cgroup has one of them.
                drop(rewrite(&folder.join(file), word));
            }
        }
    }
    signal(dir, Signal::CONT, |_| true);
}

/// Kills the shim of a command's directory; `false` when there is none, or when it waits for a disk: that one has
/// something to write, and goes on when the disk does.
pub(crate) fn kill(dir: &Path) -> bool {
    signal(dir, Signal::KILL, |pid| process::stat(pid).is_some_and(|stat| !stat.uninterruptible))
}

/// Writes into a file that is there.
fn rewrite(path: &Path, word: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(word.as_bytes())
}

fn signal(dir: &Path, signal: Signal, wanted: impl Fn(i32) -> bool) -> bool {
    let mut reached = false;
    for pid in process::pids().filter(|pid| is_shim_of(*pid, dir)) {
        let Some(number) = Pid::from_raw(pid) else { continue };
        let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { continue };
        // The number may have got a new owner before the handle was opened.
        if is_shim_of(pid, dir) && wanted(pid) {
            reached |= pidfd_send_signal(&handle, signal).is_ok();
        }
    }
    reached
}

/// A shim is known by its last two words. Whoever else takes them on gets no more than its signals.
fn is_shim_of(pid: i32, dir: &Path) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| names(&line, dir))
}

fn names(line: &[u8], dir: &Path) -> bool {
    let mut words = line.strip_suffix(b"\0").unwrap_or(line).rsplit(|byte| *byte == 0);
    words.next() == Some(dir.as_os_str().as_bytes()) && words.next() == Some(b"shim")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_two_words_make_a_shim() {
        let dir = Path::new("/state/commands/01");
        assert!(names(b"/proc/self/exe\0agent\0shim\0/state/commands/01\0", dir));
        assert!(names(b"/bin/x\0shim\0/state/commands/01\0", dir));
        for other in [
            &b"/bin/x\0shim\0/state/commands/012\0"[..],
            b"/bin/x\0shim\0/state/commands/01\0more\0",
            b"/bin/x\0/state/commands/01\0",
            b"shim /state/commands/01\0",
            b"",
        ] {
            assert!(!names(other, dir), "{other:?}");
        }
    }
}
