//! A disk without room costs output, never a result.

use std::path::{Path, PathBuf};
use std::process::Command;

use agent::commands::record;
use common::id::Uid;
use common::model::{Outcome, StreamName};
use common::wire;

use super::kit::{House, Running, is_root, not_run, shell, wait_for};

const PAGE: usize = 4096;

/// A file system of a few pages, for the command's directory alone.
struct Small(PathBuf);

impl Small {
    fn on(dir: &Path, pages: u64) -> Option<Self> {
        let size = format!("size={}k,mode=700", pages * 4);
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "paprika-test"]).arg(dir).status();
        if !done.is_ok_and(|status| status.success()) {
            not_run("full", "no file system could be mounted");
            return None;
        }
        Some(Self(dir.to_owned()))
    }

    /// Takes all room that is left.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let _ = std::fs::write(&ballast, vec![1; 1 << 20]);
        ballast
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A house with a command whose directory is a small file system of its own.
fn cramped(command: wire::Command, pages: u64) -> Option<(House, Uid, Small)> {
    if !is_root("full") {
        return None;
    }
    // Without cgroups START has nearly the same size everywhere.
    let house = House::with("none");
    let uid = house.accept(command);
    let dir = house.state.command(uid);
    let record = std::fs::read(dir.join("record")).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::create_dir(&dir).unwrap();
    let small = Small::on(&dir, pages)?;
    std::fs::write(dir.join("record"), record).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("wake"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    Some((house, uid, small))
}

/// The same without the room behind SPEC, as on a file system that copies on write: `left` bytes to the end of the page
/// are all there is. Answers what takes the rest of the disk.
fn without_reserve(line: &str, left: usize) -> Option<(House, Uid, Small, PathBuf)> {
    let used = |content: &[u8]| content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut command = shell(line);
    command.expires_ms = u64::MAX / 2;
    // The input is the last of what changes: one byte more makes SPEC one byte longer.
    (command.stdin, command.has_stdin) = (vec![b'x'; 2_000].into(), true);
    let probe = House::with("none");
    let uid = probe.accept(command.clone());
    let size = used(&std::fs::read(probe.state.command(uid).join("record")).unwrap());
    command.stdin = vec![b'x'; 2_000 + PAGE - size - left].into();
    let (house, uid, small) = cramped(command, 5)?;
    let path = house.state.command(uid).join("record");
    let content = std::fs::read(&path).unwrap();
    assert_eq!(used(&content), PAGE - left);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(PAGE as u64).unwrap();
    let ballast = small.fill();
    Some((house, uid, small, ballast))
}

/// The shim has nothing to wait for but room.
fn waits(running: &Running<'_>) -> bool {
    let asleep = std::fs::read_to_string(format!("/proc/{}/wchan", running.shim_id()));
    asleep.is_ok_and(|place| place.contains("poll"))
}

#[test]
fn a_full_disk_takes_output_and_leaves_an_exact_end() {
    let Some((house, uid, small)) = cramped(shell("head -c 3000000 /dev/zero; head -c 5000 /dev/zero >&2; exit 6"), 20)
    else {
        return;
    };
    let end = house.launch(uid).end();
    assert_eq!((end.outcome, end.exit_code, end.length(StreamName::Stdout)), (Outcome::Failed, Some(6), 3_000_000));
    assert_eq!(end.length(StreamName::Stderr), 5_000);
    assert!(end.flags.contains(&"disk_full".to_owned()), "{:?}", end.flags);
    for stream in &end.streams {
        let kept: u64 = stream.segments.iter().map(|segment| segment.length).sum();
        let gone: u64 = stream.gaps.iter().map(|gap| gap.length).sum();
        assert_eq!(kept + gone, stream.length);
    }
    drop(small);
}

#[test]
fn without_a_single_free_page_a_command_runs_and_its_end_is_kept() {
    let Some((house, uid, small)) = cramped(shell("echo lost; exit 6"), 5) else { return };
    small.fill();
    let end = house.launch(uid).end();
    assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(6)));
    assert_eq!(end.flags, ["disk_full"]);
    let history = record::read(&house.state.command(uid)).unwrap();
    assert!(history.start.is_some() && !history.torn);
    drop(small);
}

#[test]
fn a_start_that_cannot_be_recorded_runs_nothing() {
    let marker = std::env::temp_dir().join(format!("paprika-test-full-start-{}", std::process::id()));
    let Some((house, uid, _small, ballast)) = without_reserve(&format!("touch {}", marker.display()), 20) else {
        return;
    };
    let running = house.launch(uid);
    wait_for("a shim that waits for room", || waits(&running));
    assert!(running.history().start.is_none());
    std::fs::remove_file(ballast).unwrap();
    let end = running.end();
    assert_eq!((end.outcome, end.changed, end.started_ms), (Outcome::Failed, false, 0));
    let error = end.error.unwrap();
    assert!(error.code == "no_space" && error.text.contains("nothing was run"), "{error:?}");
    assert!(!marker.exists());
}

#[test]
fn a_result_that_finds_no_room_waits_until_there_is_some() {
    let Some((house, uid, _small, ballast)) = without_reserve("exit 6", 290) else { return };
    let running = house.launch(uid);
    wait_for("a shim that waits for room", || {
        let main = running.history().start.map(|start| i32::try_from(start.pid).unwrap());
        main.is_some_and(|main| !std::path::Path::new(&format!("/proc/{main}")).exists()) && waits(&running)
    });
    assert!(running.history().end.is_none());
    std::fs::remove_file(ballast).unwrap();
    let end = running.end();
    assert_eq!((end.outcome, end.exit_code, end.changed), (Outcome::Failed, Some(6), true));
}
