//! A reader that does not read: the command waits at its pipe, nothing is kept in memory for it, and nothing is lost.

use std::fs;
use std::time::Duration;

use agent::shim::process;
use common::model::{Outcome, StreamName};
use rustix::process::{Pid, Signal, kill_process};

use super::kit::{House, read_all, shell, wait_for};

/// Numbered lines, about 30 MB: far more than any pipe holds, and than the shim may hold of it.
const LINES: usize = 4_000_000;
/// What may lie between the command's writes and the disk: the pipe, which the kernel lets have at most 1 MiB, and
/// what one turn of the shim reads.
const UNDER_WAY: u64 = (1024 + 512) * 1024;
/// What a shim may have held at most, in KiB, its program's own pages included. Debug builds are large.
const MOST_MEMORY: u64 = 24 * 1024;
/// It is taken for blocked when it has written nothing for so many looks.
const STILL: u32 = 50;

/// The number in the line of `/proc/<pid>/…` that begins with a word; `None` when the process has gone.
fn number(pid: i32, file: &str, word: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    Some(line.trim().trim_end_matches(" kB").parse().unwrap())
}

fn stop(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    wait_for("the reader to stand", || process::stat(pid).unwrap().stopped);
}

fn go_on(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::CONT).unwrap();
}

fn sleeps(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('S')
}

#[test]
fn a_stopped_reader_makes_the_command_wait_and_takes_nothing_from_it() {
    for house in House::both() {
        let go = house.state.path().join("go");
        let line = format!("echo up; while [ ! -e {} ]; do sleep 0.01; done; exec seq {LINES}", go.display());
        let running = house.start(shell(&line));
        running.wait_for_output("up");
        let writer = i32::try_from(running.history().start.unwrap().pid).unwrap();
        let shim = running.shim_id();
        stop(shim);
        fs::write(&go, "").unwrap();

        // All of the flood begins while nobody reads.
        let (mut last, mut still) = (0, 0);
        wait_for("the writer to wait at its pipe", || {
            let written = number(writer, "io", "wchar:").unwrap();
            still = if written == last && written > 4096 && sleeps(writer) { still + 1 } else { 0 };
            last = written;
            still > STILL
        });
        assert!(last < UNDER_WAY, "{last} bytes were taken by somebody who does not read");
        assert_eq!(running.length(), 3, "only what came before the stop is on disk");

        // Again in the middle of the flood.
        go_on(shim);
        wait_for("a part of the flood", || running.length() > 1024 * 1024);
        stop(shim);
        let on_disk = running.length();
        // A quick machine may be through with it.
        if let Some(written) = number(writer, "io", "wchar:") {
            assert!(written.saturating_sub(on_disk) < UNDER_WAY, "{written} bytes written, {on_disk} on disk");
        }
        go_on(shim);
        wait_for("most of the flood", || running.length() > 24 * 1024 * 1024);
        if let Some(most) = number(shim, "status", "VmHWM:") {
            assert!(most < MOST_MEMORY, "the shim held {most} KiB");
        }

        let dir = running.dir.clone();
        let end = running.end();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Succeeded, Some(0)), "{end:?}");
        assert!(end.flags.is_empty() && end.streams.iter().all(|stream| stream.gaps.is_empty()), "{end:?}");
        let mut expected = b"up\n".to_vec();
        for number in 1..=LINES {
            expected.extend_from_slice(number.to_string().as_bytes());
            expected.push(b'\n');
        }
        let kept = read_all(&dir, StreamName::Stdout);
        assert_eq!(kept.len(), expected.len());
        assert!(kept == expected, "other bytes than were written");
    }
}

/// The niceness of a process, and that of its session among other sessions.
fn niceness(pid: i32) -> (i32, Option<i32>) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let nice = stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().unwrap();
    // Kernels without sessions in their scheduler have no such file.
    let session = fs::read_to_string(format!("/proc/{pid}/autogroup")).unwrap_or_default();
    (nice, session.trim().rsplit_once("nice ").map(|(_, nice)| nice.parse().unwrap()))
}

#[test]
fn a_shim_stands_back_behind_other_sessions_once_its_command_is_a_flood_and_the_command_does_not() {
    let house = House::new();
    let go = house.state.path().join("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", go.display());
    let running =
        house.start(shell(&format!("head -c 33000000 /dev/zero; {wait}; head -c 1000000 /dev/zero; exec sleep 60")));
    wait_for("most of the flood", || running.length() == 33_000_000);
    let (shim, main) = (running.shim_id(), i32::try_from(running.history().start.unwrap().pid).unwrap());
    let before = niceness(shim);
    assert_eq!(before, niceness(main));
    fs::write(&go, "").unwrap();
    wait_for("the rest of it", || running.length() == 34_000_000);
    wait_for("the shim to stand back", || niceness(shim).0 == before.0 + 10);
    assert_eq!(niceness(main), before);
    // Others than root are refused when somebody else did the same in the last tenth of a second.
    if rustix::process::geteuid().is_root() {
        wait_for("its session too", || niceness(shim).1 == before.1.map(|_| 10));
    }
    running.cancel("seen", Some(Duration::ZERO));
    assert_eq!(running.end().outcome, Outcome::Cancelled);
}
