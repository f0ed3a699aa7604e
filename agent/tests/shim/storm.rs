//! Stopped and woken all the time, by whoever: neither a shim nor a command gets stuck, and nothing is said twice or not.

use std::fs;
use std::time::Duration;

use agent::commands::record;
use common::id::Uid;
use common::model::{Outcome, StreamName};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::kit::{BOUND, House, Running, shell, text, wait_for};
use super::rungs::each;

/// Starts under the storm, on each rung.
const STARTS: usize = 5;
const LINE: &str = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo $i; sleep 0.002; done; exit 7";

/// Signals a process that is still the child of `parent`, through a handle: its number may be given away.
fn shake(pid: i32, parent: i32, signal: Signal) {
    let Some(number) = Pid::from_raw(pid) else { return };
    let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { return };
    if agent::shim::process::stat(pid).is_some_and(|stat| stat.parent == parent) {
        // It may have ended.
        let _ = pidfd_send_signal(&handle, signal);
    }
}

fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Goes on until the command has ended; answers how many gusts there were before and after START.
///
/// Between two gusts either side may stand for a while, or both.
fn storm(running: &Running<'_>) -> [usize; 2] {
    const STOP_GO: [(Signal, Signal); 6] = [
        (Signal::STOP, Signal::CONT),
        (Signal::CONT, Signal::STOP),
        (Signal::STOP, Signal::STOP),
        (Signal::STOP, Signal::CONT),
        (Signal::STOP, Signal::STOP),
        (Signal::CONT, Signal::CONT),
    ];
    let (ours, shim) = (std::process::id().cast_signed(), running.shim_id());
    let mut gusts = [0, 0];
    let mut turns = STOP_GO.iter().cycle();
    wait_for("the end of a command in a storm", || {
        let Ok(history) = record::read(&running.dir) else { return false };
        if history.end.is_some() {
            return true;
        }
        gusts[usize::from(history.start.is_some())] += 1;
        let Some((to_shim, to_children)) = turns.next() else { return false };
        shake(shim, ours, *to_shim);
        children(shim).into_iter().for_each(|child| shake(child, shim, *to_children));
        false
    });
    // Its last breath may have been held.
    shake(shim, ours, Signal::CONT);
    gusts
}

fn ends_well(house: &House, uid: Uid, running: Running<'_>) {
    let end = running.end();
    assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(7)), "{end:?}");
    assert!(end.flags.is_empty(), "{:?}", end.flags);
    let expected: String = (1..=20).map(|number| format!("{number}\n")).collect();
    assert_eq!(text(house, uid, StreamName::Stdout), expected);
}

#[test]
fn a_storm_of_stops_during_the_start_and_the_run_holds_nothing_up() {
    for house in each("storm") {
        let mut all = [0, 0];
        for _ in 0..STARTS {
            let uid = house.accept(shell(LINE));
            let running = house.launch(uid);
            let gusts = storm(&running);
            all = [all[0] + gusts[0], all[1] + gusts[1]];
            ends_well(&house, uid, running);
        }
        assert!(all[0] >= STARTS / 2 && all[1] >= STARTS, "hardly a storm: {all:?}, {}", house.base.rung());
    }
}

#[test]
fn a_command_that_is_cancelled_in_a_storm_is_gone() {
    for house in each("storm") {
        let running = house.start(shell("trap '' TERM; echo up; (setsid sleep 60 &); while :; do sleep 60; done"));
        running.wait_for_output("up");
        running.cancel("enough", Some(Duration::from_millis(100)));
        storm(&running);
        let uid = running.uid;
        let end = running.end();
        assert_eq!((end.outcome, end.signal), (Outcome::Cancelled, Some(9)), "{}", house.base.rung());
        assert!(end.duration_us < u64::try_from(BOUND.as_micros()).unwrap());
        let mark = format!("PAPRIKA_COMMAND_UID={uid}");
        let carries = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
        };
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let left: Vec<i32> =
            pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(carries).collect();
        assert_eq!(left, Vec::<i32>::new(), "{}", house.base.rung());
    }
}
