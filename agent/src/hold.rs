//! Keeps the delegated cgroup of the commands alive: what `paprika-commands.service` runs.
//!
//! systemd removes the cgroup of a service without processes. This one sits in a leaf, because a cgroup that hands
//! controllers on may not hold processes itself, and does nothing until it is told to go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

/// Holds the cgroup until TERM or INT.
#[must_use]
pub fn main() -> ExitCode {
    match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a program of its own; systemd keeps what it says")]
            {
                eprintln!("paprika-agent hold: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn hold() -> io::Result<()> {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGTERM);
    wanted.add(Signal::SIGINT);
    // Blocked before READY: a TERM that comes at once is not lost.
    wanted.thread_block()?;
    let group = own_cgroup()?;
    let leaf = group.join("hold");
    fs::create_dir_all(&leaf)?;
    fs::write(leaf.join("cgroup.procs"), "0")?;
    for controller in ["cpu", "memory", "pids", "io"] {
        // What is not delegated cannot be handed on; limits then say so.
        drop(fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")));
    }
    sd_notify::notify(&[sd_notify::NotifyState::Ready])?;
    wanted.wait()?;
    sd_notify::notify(&[sd_notify::NotifyState::Stopping])?;
    Ok(())
}

/// The cgroup this process was started in, in the tree of version 2.
fn own_cgroup() -> io::Result<PathBuf> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "this process is in no cgroup of version 2");
    let line = fs::read_to_string("/proc/self/cgroup")?;
    let path = line.lines().find_map(|line| line.strip_prefix("0::/")).ok_or_else(missing)?;
    let path = path.strip_suffix("/hold").unwrap_or(path);
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(|mount| Path::new(mount).join(path))
        .find(|group| group.join("cgroup.procs").exists() && group.join("cgroup.type").exists())
        .ok_or_else(missing)
}
