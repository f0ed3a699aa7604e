//! A shim that does what the test says: a small program that lives until it is let go, and the test that writes the
//! record and the status in its place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::id::Uid;
use common::model::Outcome;
use rustix::fs::OFlags;
use tokio::time::{sleep, timeout};

use crate::commands::accept::WAKE;
use crate::commands::status::{self, ShimPhase, ShimStatus};
use crate::commands::{End, RecordLock, Start, StateDir, layout, request};

/// Nothing here takes this long.
const BOUND: Duration = Duration::from_secs(30);

/// Lives until there is a file `go`; looks whenever it is woken. What it saw at its start stays as files.
const PROGRAM: &str = r#"#!/bin/sh
exec 3<>"$2/wake"
[ -e "$2/pause" ] && : > "$2/saw-pause"
: > "$2/ran"
while [ ! -e "$2/go" ]; do head -c 1 <&3 > /dev/null; done
"#;

/// Writes the program; answers its path.
pub(super) fn program(folder: &Path) -> String {
    let path = folder.join("actor");
    fs::write(&path, PROGRAM).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_string_lossy().into_owned()
}

/// Waits for a condition.
pub(super) async fn until(condition: impl Fn() -> bool) {
    let bounded = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, bounded).await.unwrap();
}

/// One started command in the hands of the test.
pub(super) struct Actor {
    lock: Option<RecordLock>,
    dir: PathBuf,
    folder: PathBuf,
    uid: Uid,
}

impl Actor {
    /// Waits until the agent has started the program of a command, and writes START.
    pub(super) async fn starts(state: &StateDir, uid: Uid) -> Self {
        let dir = state.command(uid);
        until(|| dir.join("ran").exists()).await;
        let mut lock = RecordLock::try_take(&dir).unwrap().unwrap();
        let start = Start { isolation: "best_effort".into(), ..Start::new("boot".to_owned(), 1, 1, 77) };
        lock.append_start(start).unwrap();
        let this = Self { lock: Some(lock), dir, folder: state.path().to_owned(), uid };
        this.note();
        this
    }

    /// Says how the command is.
    pub(super) fn says(&self, phase: ShimPhase, at_ms: u64, stuck: &[i32]) {
        status::write(&self.dir, &ShimStatus { stuck: stuck.to_vec(), ..ShimStatus::new(phase, at_ms) }).unwrap();
        self.note();
    }

    /// Writes END and goes.
    pub(super) fn ends(mut self) {
        if let Some(mut lock) = self.lock.take() {
            lock.append_end(End { started_ms: 77, ..End::without_process(Outcome::Succeeded, 99) }).unwrap();
        }
        self.note();
    }

    fn note(&self) {
        let mut notify = layout::open_fifo(&self.folder.join("notify"), OFlags::WRONLY).unwrap();
        std::io::Write::write_all(&mut notify, &self.uid.0).unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop(self.lock.take());
        // The directory may be gone already.
        drop(fs::write(self.dir.join("go"), b""));
        drop(request::wake(&self.dir));
    }
}

/// Lets the programs of all commands go that the test did not take into its hands.
pub(super) fn let_go(state: &StateDir) {
    for uid in state.list().unwrap() {
        let dir = state.command(uid);
        drop(fs::write(dir.join("go"), b""));
        drop(request::wake(&dir));
    }
}

/// Tells whether the program of a command lives.
pub(super) fn lives(state: &StateDir, uid: Uid) -> bool {
    layout::open_fifo(&state.command(uid).join(WAKE), OFlags::WRONLY).is_ok()
}
