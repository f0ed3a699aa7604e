//! A number that was a command's and is somebody else's now: whoever has it is left alone.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use agent::commands::record::{RecordLock, Start};
use agent::commands::recover::Recovered;
use agent::shim::process;
use common::model::Outcome;
use rustix::process::{Pid, Signal, kill_process};

use super::kit::{BOUND, House, alive, is_root, not_run, shell, wait_for};
use super::rungs::each;

/// The number that the kernel gave out last, in this namespace.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Somebody of our own with a session and a child in it.
struct Stranger {
    leader: Child,
    child: i32,
}

impl Stranger {
    fn new() -> Self {
        // Nobody leads a group here, so `setsid` goes on in the process that was made.
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", "sleep 60 >/dev/null & echo $!; wait"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(leader.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { leader, child: line.trim().parse().unwrap() }
    }

    /// One that has this number; `None`: somebody else keeps taking it.
    fn with_number(pid: i32) -> Option<Self> {
        let began = Instant::now();
        while began.elapsed() < BOUND {
            fs::write(LAST_PID, (pid - 1).to_string()).unwrap();
            let stranger = Self::new();
            if stranger.pid() == pid {
                return Some(stranger);
            }
        }
        None
    }

    fn pid(&self) -> i32 {
        self.leader.id().cast_signed()
    }

    fn lives(&self) -> bool {
        alive(self.pid()) && alive(self.child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Some(child) = Pid::from_raw(self.child).filter(|_| alive(self.pid())) {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

/// Recovers a command whose START names that number and that beginning.
fn recover_as(house: &House, pid: i32, start_time: u64) {
    let uid = house.accept(shell("true"));
    let start = Start::new(process::boot_id().unwrap(), pid.cast_unsigned(), start_time, 1);
    RecordLock::try_take(&house.state.command(uid)).unwrap().unwrap().append_start(start).unwrap();
    let Recovered::Ended(end) = house.recover(uid) else { panic!("not ended") };
    assert_eq!(end.outcome, Outcome::Interrupted);
    assert_eq!(end.error.as_ref().unwrap().code, "shim_killed");
    assert!(end.flags.is_empty(), "{:?}", end.flags);
}

#[test]
fn whoever_merely_has_the_number_is_left_alone_and_who_began_then_too_is_not() {
    for house in each("recycled") {
        let stranger = Stranger::new();
        let began = process::stat(stranger.pid()).unwrap().start_time;
        for other in [began - 1, began + 1, 0] {
            recover_as(&house, stranger.pid(), other);
            assert!(stranger.lives(), "killed for its number alone, {}", house.base.rung());
        }
        // The same look finds who is meant, and its session.
        recover_as(&house, stranger.pid(), began);
        wait_for("the end of both", || !alive(stranger.pid()) && !alive(stranger.child));
    }
}

/// The same with a number that the kernel itself has given out twice.
#[test]
fn a_number_that_the_kernel_gave_out_again_is_not_signalled() {
    if !is_root("recycled::kernel") {
        return;
    }
    for house in House::both() {
        let mut running = house.start(shell("echo up; exec sleep 60"));
        running.wait_for_output("up");
        let start = running.history().start.unwrap();
        let pid = start.pid.cast_signed();
        running.kill_shim();
        // What the command ran is ours to end: it was started by this test, and its shim cannot any more.
        if process::stat(pid).is_some_and(|stat| stat.start_time == start.start_time) {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        wait_for("its number to be free", || process::stat(pid).is_none_or(|stat| stat.start_time != start.start_time));
        let Some(stranger) = Stranger::with_number(pid) else {
            return not_run("recycled::kernel", "others make processes too quickly");
        };
        let Recovered::Ended(end) = house.recover_gone(running.uid) else { panic!("not ended") };
        assert_eq!(end.outcome, Outcome::Interrupted);
        assert!(end.flags.is_empty(), "{:?}", end.flags);
        assert!(stranger.lives(), "killed for its number alone, {}", house.base.rung());
    }
}
