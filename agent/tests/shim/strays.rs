//! What lives on behind the main process: killed, or kept where that was asked for.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent::commands::record;
use common::model::{Outcome, StreamName};
use common::wire;
use rustix::process::{Pid, Signal};

use super::kit::{House, alive, exe, read_all, shell, text, wait_for};

/// Ends processes of a test, whatever becomes of it.
struct Strays(Vec<i32>);

impl Drop for Strays {
    fn drop(&mut self) {
        for pid in self.0.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

fn kept(line: &str) -> wire::Command {
    wire::Command { keep_strays: true, ..shell(line) }
}

#[test]
fn without_a_wish_the_rest_dies_with_the_main_process() {
    for house in House::both() {
        let uid = house.accept(shell("echo $$; (setsid sleep 60 & echo $!); sleep 60 & echo $!"));
        let began = Instant::now();
        let end = house.launch(uid).end();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Succeeded, Some(0)));
        assert_eq!(end.flags, ["strays_killed"]);
        assert!(began.elapsed() < Duration::from_secs(20));
        let out = text(&house, uid, StreamName::Stdout);
        assert!(out.lines().all(|pid| !alive(pid.parse().unwrap())), "{out}");
    }
}

#[test]
fn kept_strays_live_on_and_the_end_waits_for_their_streams() {
    for house in House::both() {
        let go = house.state.path().join("go");
        let line = format!(
            "(while [ ! -e {} ]; do sleep 0.02; done; echo late; exec sleep 60 >/dev/null 2>&1) & echo $!",
            go.display()
        );
        let running = house.start(kept(&line));
        wait_for("the stray's number", || !running.pids().is_empty());
        let strays = Strays(running.pids());
        assert!(running.history().end.is_none());
        std::fs::write(&go, "").unwrap();
        let dir = running.dir.clone();
        let end = running.end();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Succeeded, Some(0)));
        assert_eq!(end.flags, ["strays_kept"]);
        assert!(read_all(&dir, StreamName::Stdout).ends_with(b"late\n"), "what strays write belongs to the command");
        assert_eq!(end.length(StreamName::Stdout), read_all(&dir, StreamName::Stdout).len() as u64);
        assert!(strays.0.iter().all(|pid| alive(*pid)));
    }
}

#[test]
fn strays_without_streams_hold_nothing_up_and_none_at_all_leave_no_flag() {
    let house = House::new();
    let pid = house.state.path().join("pid");
    let running = house.start(kept(&format!("sleep 60 >/dev/null 2>&1 & echo $! > {}", pid.display())));
    let end = running.end();
    let strays = Strays(vec![std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap()]);
    assert_eq!(end.flags, ["strays_kept"]);
    assert!(alive(strays.0[0]));
    assert!(house.run(kept("echo x")).flags.is_empty());
}

#[test]
fn a_cancel_ends_the_strays_and_not_what_is_known_of_the_main_process() {
    for house in House::both() {
        let running = house.start(kept("trap '' TERM; (echo $$; while :; do sleep 0.05; done) & echo $!; exit 4"));
        wait_for("the stray's number", || !running.pids().is_empty());
        let pids = running.pids();
        let main = i32::try_from(running.history().start.unwrap().pid).unwrap();
        wait_for("the main process", || !alive(main));
        running.cancel("enough", Some(Duration::from_millis(100)));
        let end = running.end();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(4)));
        assert_eq!((end.flags, end.cancelled_by.as_str()), (vec!["strays_killed".to_owned()], ""));
        assert!(pids.iter().all(|pid| !alive(*pid)));
    }
}

#[test]
fn a_cancel_before_the_end_of_the_main_process_spares_nobody() {
    for house in House::both() {
        let running = house.start(kept("(setsid sleep 60 & echo $!); echo $$; while :; do sleep 0.05; done"));
        wait_for("two pids", || running.pids().len() == 2);
        let pids = running.pids();
        running.cancel("", Some(Duration::from_millis(100)));
        assert_eq!(running.end().outcome, Outcome::Cancelled);
        assert!(pids.iter().all(|pid| !alive(*pid)));
    }
}

#[test]
fn orphans_that_end_while_the_command_runs_are_collected() {
    let house = House::new();
    let line =
        "i=0; while [ $i -lt 300 ]; do (setsid true &); i=$((i+1)); done; echo done; while :; do sleep 0.05; done";
    let running = house.start(shell(line));
    running.wait_for_output("done");
    let shim = running.shim_id();
    let children = || std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    wait_for("the main process alone", || children().split_whitespace().count() == 1);
    running.cancel("", Some(Duration::ZERO));
    let end = running.end();
    assert_eq!((end.outcome, end.flags.len()), (Outcome::Cancelled, 0));
}

/// With a wait of half a second in the place of a minute, which only a debug build can be told.
#[test]
fn who_writes_on_after_the_longest_wait_is_not_killed_by_a_broken_pipe() {
    if !cfg!(debug_assertions) {
        return;
    }
    let house = House::with("none");
    let marks = house.state.path().join("marks");
    let line = format!("(while :; do echo on; echo x >> {}; sleep 0.01; done) & echo $!", marks.display());
    let uid = house.accept(kept(&line));
    let dir = house.state.command(uid);
    let began = Instant::now();
    let status = Command::new(exe())
        .arg("shim")
        .arg(&dir)
        .env_clear()
        .env("PAPRIKA_STRAY_DRAIN_MS", "500")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "the shim is gone for the agent although its strays live");
    assert!(began.elapsed() >= Duration::from_millis(500));
    let out = String::from_utf8(read_all(&dir, StreamName::Stdout)).unwrap();
    let strays = Strays(out.lines().filter_map(|line| line.parse().ok()).collect());
    let end = record::read(&dir).unwrap().end.unwrap();
    assert_eq!((end.outcome, end.flags.clone()), (Outcome::Succeeded, vec!["strays_kept".into(), "output_cut".into()]));
    assert_eq!(end.length(StreamName::Stdout), out.len() as u64);
    // Neither the lock nor `wake` is held by what stays.
    assert!(record::RecordLock::try_take(&dir).unwrap().is_some());
    assert!(!agent::commands::request::wake(&dir).unwrap());
    let count = || std::fs::metadata(&marks).unwrap().len();
    let before = count();
    wait_for("more marks than a pipe without a reader allows", || count() > before + 200);
    assert!(strays.0.iter().all(|pid| alive(*pid)));
    assert_eq!(read_all(&dir, StreamName::Stdout).len(), out.len(), "nothing is added behind the end");
    // What stays reads the pipes and nothing else.
    let readers = readers_of(strays.0[0]);
    assert_eq!(readers.len(), 1, "{readers:?}");
    let files: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", readers[0])).unwrap().flatten().collect();
    assert_eq!(files.len(), 2);
    drop(strays);
    wait_for("its end", || readers.iter().all(|pid| !alive(*pid)));
}

/// The processes that have the other side of a process's stdout.
fn readers_of(pid: i32) -> Vec<i32> {
    let pipe = std::fs::read_link(format!("/proc/{pid}/fd/1")).unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|other| std::fs::read_link(format!("/proc/{other}/fd/0")).is_ok_and(|link| link == pipe))
        .collect()
}
