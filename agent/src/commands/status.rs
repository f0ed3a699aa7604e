//! What a shim says about its command between START and END: the file `status` in the command's directory.
//!
//! Rewritten by rename at each change and never synced: it says what is now, and after a crash of the machine nothing is.
//! Without the file a started command is running; shims of version 0.1 never write it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use common::durable;
use serde::{Deserialize, Serialize};

use super::end::VERSION;
use super::file_error::{Context, FileError};
use super::request::read_small;

/// The file in a command's directory.
pub const FILE: &str = "status";

/// Where a started command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShimPhase {
    /// Its processes run.
    Running,
    /// Its processes are held.
    Paused,
    /// It is being ended, or what it left behind does not die.
    Stopping,
}

/// What a shim said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimStatus {
    /// Version of this content.
    pub v: u32,
    /// Where the command stands.
    pub phase: ShimPhase,
    /// Processes that were killed long ago and live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<i32>,
    /// Wall clock of the change, Unix milliseconds.
    pub at_ms: u64,
    /// The main process, where START names another one that ran before it; 0: the one in START.
    #[serde(default)]
    pub pid: u32,
    /// When the kernel made that process, in clock ticks since boot.
    #[serde(default)]
    pub start_time: u64,
}

impl ShimStatus {
    /// Nothing is known beyond the phase.
    #[must_use]
    pub fn new(phase: ShimPhase, at_ms: u64) -> Self {
        Self { v: VERSION, phase, stuck: Vec::new(), at_ms, pid: 0, start_time: 0 }
    }
}

/// Reads what the shim of a command said last; `None` when it said nothing that can be understood.
#[must_use]
pub fn read(dir: &Path) -> Option<ShimStatus> {
    serde_json::from_slice(&read_small(&dir.join(FILE)).ok()?).ok()
}

/// Replaces what was said.
pub(crate) fn write(dir: &Path, status: &ShimStatus) -> Result<(), FileError> {
    let staged = dir.join("status.new");
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("remove", &staged),
        _ => {}
    }
    let mut file = durable::create_new(&staged).context("make", &staged)?;
    let content = serde_json::to_vec(status).map_err(io::Error::from).context("write", &staged)?;
    file.write_all(&content).context("write", &staged)?;
    let target = dir.join(FILE);
    fs::rename(&staged, &target).context("place", &target)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_was_said_last_is_read_and_nothing_is_said_without_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let mut status = ShimStatus::new(ShimPhase::Paused, 7);
        write(dir.path(), &status).unwrap();
        status.phase = ShimPhase::Stopping;
        status.stuck = vec![12, 13];
        write(dir.path(), &status).unwrap();
        assert_eq!(read(dir.path()), Some(status));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn unknown_fields_are_passed_over_and_unknown_phases_say_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let say = |text: &str| fs::write(dir.path().join(FILE), text).unwrap();
        say(r#"{"v":2,"phase":"running","at_ms":5,"mood":"fine"}"#);
        assert_eq!(read(dir.path()).map(|status| (status.phase, status.at_ms)), Some((ShimPhase::Running, 5)));
        for nonsense in ["", "{", r#"{"v":1,"phase":"dancing","at_ms":5}"#] {
            say(nonsense);
            assert_eq!(read(dir.path()), None, "{nonsense}");
        }
    }
}
