//! A host that lacks what a process is made of makes a command wait, and is no reason to fail it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use agent::commands::{End, History, record};
use common::model::Outcome;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::kit::{House, exe, shell, wait_for};

/// Files that a shim may have open: enough to begin, too few for the streams of a command.
const FEW: u64 = 9;

/// A shim that can open no more files. It is killed when a test fails.
struct Short {
    shim: Child,
    dir: PathBuf,
}

impl Short {
    fn start(house: &House, line: &str, until: Option<u64>) -> Self {
        let dir = house.state.command(house.accept(shell(line)));
        let mut shim = Command::new("/bin/sh");
        shim.args(["-c", &format!("exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&-; ulimit -Sn {FEW}; exec \"$0\" shim \"$1\"")])
            .arg(exe())
            .arg(&dir);
        shim.env_clear().stdin(Stdio::null());
        if let Some(until) = until {
            shim.env("PAPRIKA_SHIM_UNTIL", until.to_string());
        }
        let short = Self { shim: shim.spawn().unwrap(), dir };
        // Before START it waits for nothing else in this way.
        wait_for("a shim that waits", || {
            let asleep = std::fs::read_to_string(format!("/proc/{}/wchan", short.shim.id()));
            asleep.is_ok_and(|place| place.contains("poll")) || short.history().end.is_some()
        });
        short
    }

    fn history(&self) -> History {
        record::read(&self.dir).unwrap()
    }

    fn relieve(&self) {
        let hard = getrlimit(Resource::Nofile).maximum;
        let more = Rlimit { current: Some(1024), maximum: hard };
        prlimit(Some(Pid::from_child(&self.shim)), Resource::Nofile, more).unwrap();
    }

    fn end(mut self) -> End {
        wait_for("its end", || self.shim.try_wait().unwrap().is_some());
        self.history().end.unwrap()
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        let _ = self.shim.kill();
        let _ = self.shim.wait();
    }
}

#[test]
fn a_command_waits_for_what_a_process_is_made_of_and_runs_then() {
    let house = House::with("none");
    let short = Short::start(&house, "exit 6", None);
    let history = short.history();
    assert!(history.start.is_none() && history.end.is_none(), "{history:?}");
    short.relieve();
    let end = short.end();
    assert_eq!((end.outcome, end.exit_code, end.changed), (Outcome::Failed, Some(6), true), "{end:?}");
}

#[test]
fn a_cancel_ends_the_wait_for_a_process() {
    let house = House::with("none");
    let short = Short::start(&house, "exit 6", None);
    let request = agent::commands::request::CancelRequest { by: "admin".into(), reason: "no".into(), grace_ms: None };
    agent::commands::request::cancel(&short.dir, &request).unwrap();
    let end = short.end();
    assert_eq!((end.outcome, end.cancelled_by.as_str(), end.changed), (Outcome::Cancelled, "admin", false));
}

#[test]
fn what_expires_while_it_waits_for_a_process_is_not_started() {
    let house = House::with("none");
    let end = Short::start(&house, "exit 6", Some(1)).end();
    assert_eq!((end.outcome, end.changed, end.started_ms), (Outcome::Expired, false, 0), "{end:?}");
}

#[test]
fn a_cgroup_that_cannot_be_made_is_named_in_the_log_and_costs_only_isolation() {
    let house = House::with("none");
    let dir = house.state.command(house.accept(shell("exit 6")));
    let mut shim = Command::new(exe());
    shim.arg("shim").arg(&dir).env_clear().env("PAPRIKA_SHIM_CGROUP", "/proc/no-cgroup").stdin(Stdio::null());
    assert!(shim.status().unwrap().success());
    let end = record::read(&dir).unwrap().end.unwrap();
    assert_eq!((end.exit_code, end.isolation.as_str(), end.flags), (Some(6), "best_effort", vec!["no_cgroup".into()]));
    let log = std::fs::read_to_string(dir.join("shim.log")).unwrap();
    assert!(log.contains("make the cgroup /proc/no-cgroup: No such file or directory"), "{log}");
}
