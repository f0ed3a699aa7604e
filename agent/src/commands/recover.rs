//! What becomes of a command whose shim may be gone. The record decides, and only the holder of its lock may ask it.
//!
//! ```text
//! lock held ─────────► Held: a shim is at work
//! SPEC only ─────────► Respawn while it is valid and there were fewer than three shims, else END
//! START without END ─► kill what is left, END{interrupted}
//! END ───────────────► Ended
//! ```

use std::io;
use std::path::Path;
use std::time::Duration;

use common::id::Uid;
use common::model::{Flag, Outcome};
use common::{clock, crash};
use rustix::process::Pid;

use super::end::{End, Evidence};
use super::file_error::{Context, FileError};
use super::layout::StateDir;
use super::record::{self, RecordError, RecordLock, Start};
use super::segment;
use crate::shim::cgroup::{self, Base};
use crate::shim::process;

/// Shims that may be started for one command; one that dies before START has run nothing.
pub const MAX_SPAWNS: u32 = 3;
/// How long what is left of a command is given to die.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// Survivors that an end names by their numbers: more than that many do not fit the text of an error.
const MAX_NAMED: usize = 16;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovered {
    /// A shim is at work. When the caller knows that it is gone: the process that it had just made still has its copies
    /// of the lock and of `wake`, and closes them as its first deed; look again.
    Held,
    /// Nothing was started: start a shim.
    Respawn,
    /// It is over; END is durable and nothing of it lives.
    Ended(Box<End>),
}

/// Notes that one more shim is about to be started; answers how many there were, this one counted.
///
/// The first one leaves no note: a file for each command would be the dearest part of most. A directory without notes
/// is therefore taken for one that had its first shim. An agent that dies between acceptance and that first shim so
/// has one try less, and a loss of power, because notes are not synced, may give one more.
///
/// # Errors
/// When the note cannot be made.
pub fn note_respawn(dir: &Path) -> Result<u32, FileError> {
    let next = spawns(dir) + 1;
    let path = dir.join(format!("spawn.{next}"));
    match common::durable::create_new(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).context("make", &path),
        _ => Ok(next),
    }
}

fn spawns(dir: &Path) -> u32 {
    (2..=MAX_SPAWNS).take_while(|count| dir.join(format!("spawn.{count}")).exists()).last().unwrap_or(1)
}

/// Finds out what to do with a directory at manager time `now_ms`, and ends what can only be ended.
///
/// # Errors
/// When a file cannot be read or written, or the record is damaged; in that case nothing of the command lives any
/// more, and the directory belongs into quarantine.
pub fn recover(state: &StateDir, base: &Base, uid: Uid, now_ms: u64) -> Result<Recovered, RecordError> {
    let dir = state.command(uid);
    let mut lock = match RecordLock::try_take(&dir) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(Recovered::Held),
        Err(error) => {
            if matches!(error, RecordError::Corrupt { .. }) {
                // Nothing says any more what it ran; whatever is left of it is found by its name.
                let _ = kill_leftovers(base, uid, None);
            }
            return Err(error);
        }
    };
    let history = lock.history();
    let end = if let Some(end) = &history.end {
        // The shim ended after END, or was killed between END and its own end.
        cgroup::remove(base, uid);
        return Ok(Recovered::Ended(Box::new(end.clone())));
    } else if let Some(start) = history.start.clone() {
        interrupted(&dir, base, uid, &start)?
    } else if !super::request::cancels(&dir).is_empty() {
        let first = super::request::cancels(&dir).into_iter().next();
        first.map_or_else(
            || End::expired(clock::unix_ms()),
            |request| End::cancelled(&request.by, &request.reason, clock::unix_ms()),
        )
    } else if history.spec.command.expires_ms <= now_ms {
        End::expired(clock::unix_ms())
    } else if spawns(&dir) >= MAX_SPAWNS {
        let text = format!("{MAX_SPAWNS} times the process that was to watch the command ended before it was started");
        End::without_process(Outcome::Failed, clock::unix_ms()).because("spawn", text)
    } else {
        return Ok(Recovered::Respawn);
    };
    crash::point("agent.end.before");
    lock.append_end(end.clone())?;
    crash::point("agent.end.after");
    cgroup::remove(base, uid);
    Ok(Recovered::Ended(Box::new(end)))
}

/// Ends a command that was not started yet. `None`: a shim has it, or had it: a request is the way.
///
/// # Errors
/// When the record cannot be read or END cannot be made durable.
pub fn cancel_before_start(dir: &Path, by: &str, reason: &str) -> Result<Option<End>, RecordError> {
    let Some(mut lock) = RecordLock::try_take(dir)? else { return Ok(None) };
    if let Some(end) = &lock.history().end {
        return Ok(Some(end.clone()));
    }
    if lock.history().start.is_some() {
        return Ok(None);
    }
    let end = End::cancelled(by, reason, clock::unix_ms());
    crash::point("agent.cancel-unstarted.before");
    lock.append_end(end.clone())?;
    crash::point("agent.cancel-unstarted.after");
    Ok(Some(end))
}

fn interrupted(dir: &Path, base: &Base, uid: Uid, start: &Start) -> Result<End, RecordError> {
    let same_boot = process::boot_id().is_ok_and(|boot| boot == start.boot_id);
    let left = if same_boot { kill_leftovers(base, uid, Some(start)) } else { Leftovers::default() };
    let evidence = if same_boot { Evidence::ShimKilled } else { Evidence::Reboot };
    let mut end = End::interrupted(evidence, clock::unix_ms());
    end.changed = true;
    end.started_ms = start.at_ms;
    end.isolation.clone_from(&start.isolation);
    end.streams = segment::survey(dir)?;
    if left.escaped {
        end.flags.push(Flag::Escaped.to_string());
    }
    if !left.alive.is_empty() {
        end.flags.push(Flag::Alive.with_count(left.alive.len()));
        if let Some(error) = &mut end.error {
            error.text.push_str("; ");
            error.text.push_str(&name_survivors(&left.alive));
        }
    }
    Ok(end)
}

/// Names processes that did not die, at most a few of them.
fn name_survivors(alive: &[i32]) -> String {
    let named: Vec<_> = alive.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = alive.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("still alive after {} s of kills: pids {}{more}", KILL_WITHIN.as_secs(), named.join(" "))
}

/// What was found of a command whose shim is gone.
#[derive(Debug, Default)]
struct Leftovers {
    /// Processes that survived the kills.
    alive: Vec<i32>,
    /// Something of it was outside of its cgroup.
    escaped: bool,
}

/// Kills what a command left.
fn kill_leftovers(base: &Base, uid: Uid, start: Option<&Start>) -> Leftovers {
    let mut left = Leftovers::default();
    let mut groups: Vec<_> = start.and_then(|start| start.cgroup.clone()).into_iter().chain(base.of(uid)).collect();
    groups.dedup();
    groups.retain(|group| group.is_dir());
    for group in &groups {
        left.alive.extend(base.pen(group.clone()).kill_all(KILL_WITHIN).into_iter().map(Pid::as_raw_pid));
        cgroup::remove_tree(group);
    }
    // A pid means something only together with its start: the session's leader may be gone and its number reused.
    let main = start.and_then(|start| {
        let pid = i32::try_from(start.pid).ok()?;
        match process::stat(pid) {
            Some(found) if found.start_time != start.start_time => None,
            _ => Some(pid),
        }
    });
    // Also where there was a cgroup: what had moved itself out of it still carries the uid.
    left.escaped = !groups.is_empty() && process::leftovers(uid, main).iter().any(|pid| !left.alive.contains(pid));
    if groups.is_empty() || left.escaped {
        left.alive.extend(process::kill_leftovers(uid, main, KILL_WITHIN));
    }
    left.alive.sort_unstable();
    left.alive.dedup();
    for folder in start.iter().flat_map(|start| &start.controllers) {
        cgroup::remove_tree(folder);
    }
    left
}

/// What can still be read of a damaged record, for the end that reports it.
#[must_use]
pub fn salvage(state: &StateDir, uid: Uid) -> Option<record::Spec> {
    record::salvage(&state.command(uid))
}

/// Removes the empty cgroups of commands that have no directory any more, and empty places of agents that are no more.
/// Processes that a command was allowed to leave behind are left alone; their cgroup goes when it is empty.
pub fn sweep_cgroups(state: &StateDir, base: &Base) {
    cgroup::sweep(base, |uid| state.command(uid).exists());
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
