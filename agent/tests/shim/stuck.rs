//! What does not die is named, and never reported as ended while it lives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::commands::status::{self, ShimPhase};
use common::model::Outcome;

use super::kit::{House, alive, is_root, not_run, shell, wait_for};

/// A freezer of version 1: who is frozen in it dies of nothing, as in a read from a server that is gone.
struct Freezer(PathBuf);

impl Freezer {
    fn new() -> Option<Self> {
        let mount = Path::new("/sys/fs/cgroup/freezer");
        if !mount.join("cgroup.procs").exists() {
            not_run("stuck", &format!("no freezer of version 1 at {}", mount.display()));
            return None;
        }
        let folder = mount.join(format!("paprika-test-stuck-{}", std::process::id()));
        match std::fs::create_dir(&folder) {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                not_run("stuck", &format!("{} cannot be made: {error}", folder.display()));
                None
            }
        }
    }

    fn take(&self, pid: i32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        self.set("FROZEN");
        wait_for("the freezer", || std::fs::read_to_string(self.0.join("freezer.state")).unwrap().trim() == "FROZEN");
    }

    fn set(&self, word: &str) {
        std::fs::write(self.0.join("freezer.state"), word).unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.set("THAWED");
        let gone = || std::fs::remove_dir(&self.0).is_ok();
        if !std::thread::panicking() {
            wait_for("the freezer's end", gone);
        }
    }
}

#[test]
fn a_process_that_cannot_die_is_named_and_the_command_goes_on_stopping() {
    if !is_root("stuck") {
        return;
    }
    let Some(freezer) = Freezer::new() else { return };
    for house in House::both() {
        let running = house.start(shell("echo $$; while :; do sleep 0.05; done"));
        wait_for("its number", || !running.pids().is_empty());
        let pid = running.pids()[0];
        freezer.take(pid);
        running.cancel("enough", Some(Duration::ZERO));
        running.wait_for_phase(ShimPhase::Stopping);
        wait_for("its name", || status::read(&running.dir).is_some_and(|status| !status.stuck.is_empty()));
        let said = status::read(&running.dir).unwrap();
        assert!(said.stuck.contains(&pid), "{said:?}");
        assert_eq!(said.phase, ShimPhase::Stopping);
        assert!(running.history().end.is_none() && alive(pid), "not ended while it lives");
        freezer.set("THAWED");
        let end = running.end();
        assert_eq!((end.outcome, end.signal), (Outcome::Cancelled, Some(9)));
        assert_eq!(end.flags, ["stuck"]);
    }
}
