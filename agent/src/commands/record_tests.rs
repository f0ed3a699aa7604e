//! Tests of the record: every cut and every flipped bit, at every place.

#![expect(clippy::unwrap_used, reason = "tests")]

use common::model::{Outcome, StreamName};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::commands::segment;

fn command() -> Vec<u8> {
    wire::Command { uid: vec![7; 16].into(), id: 3, operation: "command.run".into(), ..Default::default() }
        .encode_to_vec()
}

fn fresh() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), initial(11, &command(), b"", None)).unwrap();
    dir
}

fn start() -> Start {
    Start::new("boot".into(), 42, 99, 12)
}

fn end() -> End {
    End { exit_code: Some(3), ..End::without_process(Outcome::Failed, 13) }
}

/// A record with SPEC, START and END, and where each of them ends.
fn full() -> (TempDir, Vec<u8>, [usize; 3]) {
    let dir = fresh();
    let mut lock = RecordLock::try_take(dir.path()).unwrap().unwrap();
    let mut ends = [lock.at; 3];
    lock.append_start(start()).unwrap();
    ends[1] = lock.at;
    lock.append_end(end()).unwrap();
    ends[2] = lock.at;
    drop(lock);
    let content = fs::read(dir.path().join(FILE)).unwrap();
    (dir, content, ends)
}

#[test]
fn what_was_appended_is_read_and_fits_the_room_that_was_there() {
    let dir = fresh();
    let size = fs::metadata(dir.path().join(FILE)).unwrap().len();
    assert_eq!(size % BLOCK as u64, 0);
    let mut lock = RecordLock::try_take(dir.path()).unwrap().unwrap();
    lock.append_start(start()).unwrap();
    lock.append_end(end()).unwrap();
    let history = read(dir.path()).unwrap();
    assert_eq!((history.spec.accepted_ms, history.spec.command.id), (11, 3));
    assert_eq!(history.spec.raw, command());
    assert_eq!((history.start, history.end, history.torn), (Some(start()), Some(end()), false));
    assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), size);
}

#[test]
fn only_one_holds_the_lock_and_it_ends_with_its_holder() {
    let dir = fresh();
    let first = RecordLock::try_take(dir.path()).unwrap();
    assert!(first.is_some());
    assert!(RecordLock::try_take(dir.path()).unwrap().is_none());
    drop(first);
    assert!(RecordLock::try_take(dir.path()).unwrap().is_some());
}

/// An append that stopped anywhere leaves what was before it, and the next holder goes on from there.
#[test]
fn an_append_torn_at_every_byte_never_happened() {
    let (dir, content, ends) = full();
    let path = dir.path().join(FILE);
    for torn in [1, 2] {
        for cut in ends[torn - 1]..ends[torn] {
            for file_ends_there in [true, false] {
                let mut left = content[..cut].to_vec();
                if !file_ends_there {
                    left.resize(content.len(), 0);
                }
                fs::write(&path, &left).unwrap();
                let mut lock = RecordLock::try_take(dir.path()).unwrap().unwrap();
                assert_eq!(lock.history().start.is_some(), torn == 2, "cut at {cut}");
                assert!(lock.history().end.is_none());
                lock.append_end(end()).unwrap();
                drop(lock);
                let history = read(dir.path()).unwrap();
                assert_eq!((history.start.is_some(), history.end, history.torn), (torn == 2, Some(end()), false));
            }
        }
    }
}

#[test]
fn a_record_without_its_spec_is_damage() {
    let (dir, content, ends) = full();
    for cut in 0..ends[0] {
        fs::write(dir.path().join(FILE), &content[..cut]).unwrap();
        assert!(matches!(RecordLock::try_take(dir.path()), Err(RecordError::Corrupt { .. })), "cut at {cut}");
    }
}

/// What must never happen: a flipped bit makes a command that ran look as if it had not, or changes what is said.
#[test]
fn no_flipped_bit_hides_a_start_that_an_end_follows() {
    let (dir, content, ends) = full();
    let path = dir.path().join(FILE);
    for at in 0..ends[2] {
        for bit in 0..8 {
            let mut bad = content.clone();
            bad[at] ^= 1 << bit;
            fs::write(&path, &bad).unwrap();
            match RecordLock::try_take(dir.path()) {
                Err(RecordError::Corrupt { .. }) => {
                    assert_eq!(fs::read(&path).unwrap(), bad, "damage is left as it is")
                }
                Err(other) => panic!("{other}"),
                Ok(lock) => {
                    let lock = lock.unwrap();
                    assert!(at >= ends[1], "byte {at} bit {bit}");
                    assert_eq!((&lock.history().start, &lock.history().end), (&Some(start()), &None));
                }
            }
        }
    }
}

#[test]
fn output_proves_that_a_start_was_there() {
    let (dir, content, ends) = full();
    let mut bad = content[..ends[1]].to_vec();
    bad[ends[0] + 20] ^= 1;
    fs::write(dir.path().join(FILE), &bad).unwrap();
    fs::write(dir.path().join(segment::name(StreamName::Stderr, 0)), b"x").unwrap();
    assert!(matches!(RecordLock::try_take(dir.path()), Err(RecordError::Corrupt { .. })));
    assert_eq!(salvage(dir.path()).map(|spec| spec.command.id), Some(3));
}

#[test]
fn records_in_a_wrong_order_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut twice = initial(1, &command(), b"", Some(&end()));
    frame(Kind::Start, &json(&start()), &mut twice);
    fs::write(dir.path().join(FILE), &twice).unwrap();
    assert!(matches!(read(dir.path()), Err(RecordError::Corrupt { .. })));
    fs::write(dir.path().join(FILE), b"PAPREC2\nsomething").unwrap();
    assert!(matches!(read(dir.path()), Err(RecordError::Corrupt { at: 0, .. })));
}

/// Records that version 0.1 wrote: a shim of that version may live under this agent, and its ends are still delivered.
#[test]
fn records_of_version_0_1_are_read_as_they_were_meant() {
    let sample = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/records-0.1").join(name);
        let dir = tempfile::tempdir().unwrap();
        fs::copy(path, dir.path().join(FILE)).unwrap();
        let history = read(dir.path()).unwrap();
        assert!(!history.torn);
        (dir, history)
    };
    let (dir, running) = sample("running.record");
    let command = &running.spec.command;
    assert_eq!((command.operation.as_str(), command.timeout_ms, command.cwd.as_str()), ("command.run", 90_000, "/tmp"));
    assert!(command.has_stdin && command.stdin == "given" && command.idempotent && command.needs.is_empty());
    assert_eq!((command.has_umask, command.nice, command.oom_score, command.keep_strays), (false, 0, 0, false));
    assert_eq!((command.stop_signal, command.has_grace), (0, false));
    let start = running.start.unwrap();
    assert_eq!((start.v, start.isolation.as_str(), start.controllers.len()), (1, "cgroup", 0));
    assert!(start.cgroup.is_some() && start.pid > 0 && start.pid == start.session && running.end.is_none());
    // And this version can end what that one began.
    RecordLock::try_take(dir.path()).unwrap().unwrap().append_end(end()).unwrap();
    assert_eq!(read(dir.path()).unwrap().end, Some(end()));

    let failed = sample("failed.record").1.end.unwrap();
    assert_eq!((failed.outcome, failed.exit_code, failed.changed), (Outcome::Failed, Some(3), true));
    assert_eq!((failed.length(StreamName::Stdout), failed.length(StreamName::Stderr)), (100_004, 5));
    assert_eq!((failed.io_read, failed.io_written, failed.tasks_peak), (0, 0, 0));
    assert_eq!(failed.streams[0].segments[0].blake3.len(), 64);

    let interrupted = sample("interrupted.record").1.end.unwrap();
    assert_eq!((interrupted.outcome, interrupted.lower_bounds), (Outcome::Interrupted, true));
    assert_eq!(interrupted.error.unwrap().code, "shim_killed");
}

/// What a later version adds is passed over by this one.
#[test]
fn fields_that_are_not_known_are_passed_over() {
    let with = |json: Vec<u8>| {
        let text = String::from_utf8(json).unwrap();
        text.replacen('{', r#"{"mood":["fine",1],"#, 1).into_bytes()
    };
    let dir = fresh();
    let mut lock = RecordLock::try_take(dir.path()).unwrap().unwrap();
    lock.append(Kind::Start, &with(json(&start()))).unwrap();
    lock.append(Kind::End, &with(json(&end()))).unwrap();
    let history = read(dir.path()).unwrap();
    assert_eq!((history.start, history.end), (Some(start()), Some(end())));
}

/// Whatever an end holds, its shortest form has room behind the largest START that is to be expected.
#[test]
fn the_room_behind_a_spec_takes_a_start_and_an_end_that_was_cut() {
    let dir = fresh();
    let size = fs::metadata(dir.path().join(FILE)).unwrap().len();
    let mut start = start();
    let folder =
        PathBuf::from(format!("/sys/fs/cgroup/unified/system.slice/paprika-commands.service/{}", "0".repeat(32)));
    start.cgroup = Some(folder.clone());
    start.controllers = vec![folder; 4];
    let long = "x".repeat(1 << 16);
    let mut end = End::cancelled(&long, &long, 1).because("timeout", long.clone());
    end.flags =
        ["strays_killed", "pipe_held", "stuck", "escaped", "disk_full", "oom_by_host"].map(str::to_owned).to_vec();
    end.value = long;
    let mut lock = RecordLock::try_take(dir.path()).unwrap().unwrap();
    lock.append_start(start).unwrap();
    lock.append_end(end.cut()).unwrap();
    assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), size);
}

proptest! {
    #[test]
    fn no_content_makes_the_reader_panic(content in prop::collection::vec(any::<u8>(), 0..400), with_magic: bool) {
        let dir = tempfile::tempdir().unwrap();
        let content = if with_magic { [MAGIC.as_slice(), &content].concat() } else { content };
        fs::write(dir.path().join(FILE), &content).unwrap();
        prop_assert!(read(dir.path()).is_err());
    }

    #[test]
    fn any_end_comes_back_as_it_went(code: Option<i32>, signal: Option<u32>, text in ".*", oom: bool, value in "[a-z{}\":]*", lengths in prop::collection::vec(any::<u64>(), 0..3)) {
        let mut end = End { exit_code: code, signal, oom, value, ..End::without_process(Outcome::Failed, 1) }.because("x", text);
        end.streams = lengths.iter().map(|length| crate::commands::StreamEnd { stream: StreamName::Stdout, length: *length, gaps: vec![], segments: vec![] }).collect();
        let dir = fresh();
        RecordLock::try_take(dir.path()).unwrap().unwrap().append_end(end.clone()).unwrap();
        prop_assert_eq!(read(dir.path()).unwrap().end, Some(end));
    }
}
