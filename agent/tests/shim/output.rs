//! What a command writes is what is kept, byte by byte.

use std::time::Duration;

use common::model::{Outcome, StreamName};

use super::kit::{House, Outsider, read_all, shell, text, wait_for};

const MIB: usize = 1024 * 1024;

#[test]
fn ten_mebibytes_on_both_streams_are_exact() {
    let house = House::new();
    let uid = house.accept(shell(
        "head -c 10485760 /dev/urandom > $HOME/.paprika-test-$PAPRIKA_COMMAND_UID; f=$HOME/.paprika-test-$PAPRIKA_COMMAND_UID; \
         cat $f & cat $f >&2; wait; rm $f",
    ));
    let end = house.launch(uid).end();
    assert_eq!(end.outcome, Outcome::Succeeded);
    let dir = house.state.command(uid);
    let (out, err) = (read_all(&dir, StreamName::Stdout), read_all(&dir, StreamName::Stderr));
    assert_eq!(out.len(), 10 * MIB);
    assert!(out == err, "both streams carry the same file");
    for (stream, bytes) in [(StreamName::Stdout, &out), (StreamName::Stderr, &err)] {
        let kept = end.streams.iter().find(|end| end.stream == stream).unwrap();
        assert_eq!((kept.length, kept.gaps.len()), (bytes.len() as u64, 0));
        for segment in &kept.segments {
            let range = segment.offset as usize..(segment.offset + segment.length) as usize;
            assert_eq!(segment.blake3, blake3::hash(&bytes[range]).to_hex().to_string());
        }
        assert_eq!(kept.segments.iter().map(|segment| segment.length).sum::<u64>(), kept.length);
    }
}

#[test]
fn bytes_that_are_no_text_stay_as_they_are() {
    let house = House::new();
    let uid = house.accept(shell("printf '\\377\\376\\000\\r\\n\\200'"));
    house.launch(uid).end();
    assert_eq!(read_all(&house.state.command(uid), StreamName::Stdout), b"\xff\xfe\0\r\n\x80");
}

#[test]
fn output_can_be_read_while_the_command_runs() {
    let house = House::new();
    let running = house.start(shell("echo first; read line < /dev/tty; sleep 60"));
    running.wait_for_output("first");
    assert!(running.history().end.is_none());
    running.cancel("seen", Some(Duration::ZERO));
    assert_eq!(running.end().outcome, Outcome::Cancelled);
}

#[test]
fn what_is_written_last_is_not_lost() {
    let house = House::new();
    for round in 0..50 {
        let uid = house.accept(shell(&format!("printf {round:05}; printf {round:06} >&2")));
        let end = house.launch(uid).end();
        assert_eq!((end.length(StreamName::Stdout), end.length(StreamName::Stderr)), (5, 6));
        assert_eq!(text(&house, uid, StreamName::Stderr), format!("{round:06}"));
    }
}

#[test]
fn over_quota_the_size_of_the_gap_is_exact() {
    let house = House::new();
    let limits = common::wire::CommandLimits { output: MIB as u64, ..Default::default() };
    let uid = house.accept(common::wire::Command { limits: Some(limits), ..shell("yes 1234567 | head -c 5000000") });
    let end = house.launch(uid).end();
    let kept = &end.streams[0];
    assert_eq!(kept.length, 5_000_000);
    let there: u64 = kept.segments.iter().map(|segment| segment.length).sum();
    let gone: u64 = kept.gaps.iter().map(|gap| gap.length).sum();
    assert_eq!(there + gone, kept.length);
    assert!(there <= MIB as u64 && there > MIB as u64 / 2);
    assert_eq!(kept.gaps.len(), 1);
    assert!(read_all(&house.state.command(uid), StreamName::Stdout).starts_with(b"1234567\n"));
}

#[test]
fn a_pipe_that_a_stranger_holds_does_not_hold_the_result() {
    let house = House::new();
    let running = house.start(shell("echo $$; sleep 0.5"));
    wait_for("the pid", || !running.pids().is_empty());
    let pid = running.pids()[0];
    let _holder = Outsider::new(&format!("exec sleep 60 > /proc/{pid}/fd/1"));
    let end = running.end();
    assert_eq!((end.outcome, end.exit_code), (Outcome::Succeeded, Some(0)));
    assert_eq!(end.flags, ["pipe_held"]);
}

#[test]
fn a_reader_that_goes_away_ends_a_writer_by_its_signal() {
    let house = House::new();
    let end = house.shell("yes | head -n 1 >/dev/null; exec 3>&1; yes 2>&1 | true");
    assert_eq!((end.outcome, end.length(StreamName::Stderr)), (Outcome::Succeeded, 0));
}
