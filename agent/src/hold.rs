//! Keeps the delegated cgroup of the commands alive: what `paprika-commands.service` runs.
//!
//! ```text
//! join leaf `hold` ─► READY ─► wait ─► TERM ─► the machine goes down? ─► cancel what runs, wait for its ends
//!                                               └─ no: gone at once, every command goes on
//! ```
//! systemd removes the cgroup of a service without processes. This one sits in a leaf, because a cgroup that hands
//! controllers on may not hold processes itself. When the whole machine goes down it is the last of us that is told,
//! and in time: it asks every running command to end, so that its end is known and not only guessed after the boot.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use common::error::Chain;
use common::id::Uid;
use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;

use crate::args::USAGE;
use crate::commands::accept::WAKE;
use crate::commands::layout;
use crate::commands::request::{self, CancelRequest};
use crate::config::{AgentConfig, DEFAULT_FILE, default_state_dir};
use crate::limits::{END_WITHIN, SHUTDOWN_GRACE, SYSTEMD_ANSWERS};
use crate::shim::ask::{ask, wait};

/// Who asked, as it stands in the ends.
const BY: &str = "host";
const REASON: &str = "the machine shuts down";

/// Holds the cgroup of the commands until it is told to go; ends them when the machine shuts down.
#[derive(Debug, Parser)]
#[command(name = "paprika-agent hold", disable_help_subcommand = true)]
struct Args {
    /// The agent's configuration file: names the state directory.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// The agent's state directory instead of the one in the file.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Why the cgroup is not held.
#[derive(Debug, thiserror::Error)]
enum HoldError {
    #[error("the signals that end the holder cannot be listened for")]
    Signals(#[source] nix::Error),
    #[error("the cgroup of this process is not known")]
    Group(#[source] io::Error),
    #[error("the cgroup {path} cannot be made")]
    Leaf {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("this process cannot enter the cgroup through {path}")]
    Join {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("systemd cannot be told ({step})")]
    Notify {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Holds the cgroup until TERM or INT.
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    let args = match Args::try_parse_from(std::iter::once(&"hold".into()).chain(args)) {
        Ok(args) => args,
        Err(error) => {
            // A closed terminal is no reason for another error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match hold(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&Chain(&error).to_string());
            ExitCode::FAILURE
        }
    }
}

/// A program of its own: systemd keeps what it says.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "paprika-agent hold: {text}");
}

fn hold(args: &Args) -> Result<(), HoldError> {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGTERM);
    wanted.add(Signal::SIGINT);
    // Blocked before READY: a TERM that comes at once is not lost.
    wanted.thread_block().map_err(HoldError::Signals)?;
    enter(&own_cgroup().map_err(HoldError::Group)?)?;
    tell("READY", sd_notify::NotifyState::Ready)?;
    wanted.wait().map_err(HoldError::Signals)?;
    tell("STOPPING", sd_notify::NotifyState::Stopping)?;
    // A restart of this unit, or its end by hand, is nobody's reason to end a command.
    if machine_goes_down("systemctl") {
        let left = end_commands(&state_dir(args), END_WITHIN);
        if !left.is_empty() {
            say(&format!("{} commands had not ended when the time was over", left.len()));
        }
    }
    Ok(())
}

/// Moves this process into a leaf of its cgroup and hands the controllers on.
fn enter(group: &Path) -> Result<(), HoldError> {
    let leaf = group.join("hold");
    fs::create_dir_all(&leaf).map_err(|source| HoldError::Leaf { path: leaf.clone(), source })?;
    let procs = leaf.join("cgroup.procs");
    fs::write(&procs, "0").map_err(|source| HoldError::Join { path: procs, source })?;
    for controller in ["cpu", "memory", "pids", "io"] {
        // What is not delegated cannot be handed on; limits then say so.
        drop(fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")));
    }
    Ok(())
}

fn tell(step: &'static str, news: sd_notify::NotifyState<'_>) -> Result<(), HoldError> {
    sd_notify::notify(&[news]).map_err(|source| HoldError::Notify { step, source })
}

/// Where the commands are. Read when it is needed: the holder may have begun before the configuration was there.
fn state_dir(args: &Args) -> PathBuf {
    if let Some(dir) = &args.state_dir {
        return dir.clone();
    }
    match common::config::load::<AgentConfig>(&args.config) {
        Ok(config) => config.state_dir,
        Err(error) => {
            let usual = default_state_dir();
            say(&format!("{}; commands are looked for in {}", Chain(&error), usual.display()));
            usual
        }
    }
}

/// Asks systemd whether everything is being stopped. Without a clear answer nothing is ended: the commands are then
/// interrupted by the shutdown, which is what the next boot reports.
fn machine_goes_down(systemctl: &str) -> bool {
    match ask(systemctl, &["is-system-running"], SYSTEMD_ANSWERS) {
        Ok((_, answer)) => answer.trim() == "stopping",
        Err(error) => {
            say(&format!("{systemctl} does not say whether the machine goes down: {error}"));
            false
        }
    }
}

/// Asks every command that runs to end and waits for the ends; answers those that did not end in time.
///
/// What has not begun is left as it is: it starts after the boot if it is still valid then.
pub fn end_commands(state_dir: &Path, within: Duration) -> Vec<Uid> {
    let deadline = Instant::now() + within;
    // What is left then is killed, and its end is written in the last quarter.
    let patience = deadline - within / 4;
    let mut running = running(state_dir);
    let first = CancelRequest {
        by: BY.to_owned(),
        reason: REASON.to_owned(),
        grace_ms: u64::try_from(SHUTDOWN_GRACE.as_millis()).ok(),
    };
    for command in &running {
        // Somebody else's request has its own grace, as long as there is time for it.
        if request::cancels(&command.dir).is_empty() {
            request_end(command, &first);
        }
    }
    wait_for_ends(&mut running, patience);
    let second = CancelRequest { grace_ms: Some(0), ..first };
    for command in &running {
        request_end(command, &second);
    }
    wait_for_ends(&mut running, deadline);
    running.into_iter().map(|command| command.uid).collect()
}

fn request_end(command: &Running, request: &CancelRequest) {
    if let Err(error) = request::cancel(&command.dir, request) {
        say(&format!("command {} cannot be asked to end: {}", command.uid, Chain(&error)));
    }
}

/// A command whose shim is at work.
struct Running {
    uid: Uid,
    dir: PathBuf,
    /// The write end: it reports an error when nobody reads any more, which is when the shim is gone.
    wake: File,
}

fn running(state_dir: &Path) -> Vec<Running> {
    let entries = match fs::read_dir(state_dir.join("commands")) {
        Ok(entries) => entries,
        Err(error) => {
            say(&format!("{}: {error}", state_dir.join("commands").display()));
            return Vec::new();
        }
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let uid = entry.file_name().to_str()?.parse().ok()?;
            // Without a reader it cannot be opened. Its lock is not touched: a shim that begins would miss it.
            let wake = layout::open_fifo(&entry.path().join(WAKE), OFlags::WRONLY).ok()?;
            Some(Running { uid, dir: entry.path(), wake })
        })
        .collect()
}

/// Waits until all have ended or the time is over; those that have not stay in the list.
fn wait_for_ends(running: &mut Vec<Running>, deadline: Instant) {
    loop {
        running.retain(|command| {
            let gone = wait(&[PollFd::new(&command.wake, PollFlags::empty())], Duration::ZERO);
            !gone.unwrap_or(true)
        });
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(next) = running.first() else { return };
        // The first one only: whatever the order of the ends, all are waited for. An error is an end, see above.
        if left.is_zero() || wait(&[PollFd::new(&next.wake, PollFlags::empty())], left).is_err() {
            return;
        }
    }
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(folder: &Path, answer: &str) -> String {
        let path = folder.join("systemctl");
        fs::write(&path, format!("#!/bin/sh\n[ \"$1\" = is-system-running ] || exit 9\n{answer}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn only_the_clear_answer_that_everything_stops_ends_commands() {
        let folder = tempfile::tempdir().unwrap();
        // The answer decides, not the status: systemd gives 1 with everything but `running`.
        for (line, down) in [
            ("echo stopping; exit 1", true),
            ("echo running", false),
            ("echo degraded; exit 1", false),
            ("echo maintenance; exit 1", false),
            ("exit 1", false),
        ] {
            assert_eq!(machine_goes_down(&program(folder.path(), line)), down, "{line}");
        }
        assert!(!machine_goes_down("/no/such/systemctl"));
    }

    #[test]
    fn without_a_state_directory_there_is_nothing_to_end() {
        let folder = tempfile::tempdir().unwrap();
        assert!(end_commands(&folder.path().join("none"), END_WITHIN).is_empty());
    }

    #[test]
    fn the_state_directory_is_the_given_one_or_the_one_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("agent.yml");
        fs::write(&config, "managers: [m]\nstate_dir: /srv/agent\n").unwrap();
        let parse = |words: &[&str]| state_dir(&Args::try_parse_from(words).unwrap());
        let config = config.to_str().unwrap();
        assert_eq!(parse(&["hold", "--config", config]), Path::new("/srv/agent"));
        assert_eq!(parse(&["hold", "--config", config, "--state-dir", "/x"]), Path::new("/x"));
        assert_eq!(parse(&["hold", "--config", "/no/such"]), default_state_dir());
    }
}
