//! Looking at a directory in which everything that can be there is there.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;

use common::model::Outcome;
use common::wire;
use prost::Message;

use super::*;
use crate::commands::accept::{NewCommand, accept_many};
use crate::commands::reserve::Reserve;
use crate::commands::{End, RecordLock, Start, StateDir};

fn put(state: &StateDir, id: u64, accepted_ms: u64) -> Uid {
    let uid = Uid::random();
    let message = wire::Command { uid: uid.to_wire(), id, operation: "command.run".into(), ..Default::default() };
    let new =
        NewCommand { uid, accepted_ms, raw: message.encode_to_vec().into(), sealed: bytes::Bytes::new(), end: None };
    assert!(accept_many(state, &[new]).iter().all(Result::is_ok));
    uid
}

/// Starts a command as its shim would; as long as what it answers lives, the shim does.
fn start(state: &StateDir, uid: Uid, at_ms: u64) -> (RecordLock, File) {
    let dir = state.command(uid);
    let wake = layout::open_fifo(&dir.join(WAKE), OFlags::RDWR).unwrap();
    let mut lock = RecordLock::try_take(&dir).unwrap().unwrap();
    let cgroup = Some(PathBuf::from("/sys/fs/cgroup/x"));
    let start = Start { cgroup, isolation: "cgroup".into(), ..Start::new("boot".into(), 4711, 1, at_ms) };
    lock.append_start(start).unwrap();
    (lock, wake)
}

fn about(max_running: u32) -> About {
    let boot_id = crate::shim::process::boot_id().unwrap();
    let rest =
        About { agent: "web1".into(), boot_id, rung: "v2".into(), isolation: "cgroup".into(), ..About::default() };
    About::of_this_process(About { max_running, reserve: 128 * 1024, ..rest })
}

fn phases(report: &Report) -> Vec<(u64, Phase, u64, bool)> {
    report.commands.iter().map(|one| (one.id, one.phase, one.since_ms, one.shim_alive)).collect()
}

#[test]
fn everything_that_is_there_is_shown_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    about(3).write(state.path()).unwrap();
    let reserve = Reserve::open(state.path(), 128 * 1024);
    let uids: Vec<_> = (1..=6).map(|id| put(&state, id, 10 + id)).collect();
    let _running = start(&state, uids[0], 50);
    std::fs::write(state.command(uids[0]).join(format!("stdout.{:020}", 0)), b"12345").unwrap();
    let _paused = start(&state, uids[1], 60);
    let word = ShimStatus { pid: 4712, ..ShimStatus::new(ShimPhase::Paused, 65) };
    status::write(&state.command(uids[1]), &word).unwrap();
    let _stopping = start(&state, uids[2], 70);
    let word = ShimStatus { stuck: vec![8, 9], ..ShimStatus::new(ShimPhase::Stopping, 75) };
    status::write(&state.command(uids[2]), &word).unwrap();
    let (mut ended, _) = start(&state, uids[3], 80);
    ended.append_end(End { finished_ms: 90, ..End::without_process(Outcome::Failed, 90) }).unwrap();
    let (gone, wake) = start(&state, uids[4], 85);
    drop((gone, wake));
    fs::create_dir(state.path().join("kept").join(format!("{:014}-{}", 5, Uid::random()))).unwrap();
    fs::create_dir(state.path().join("quarantine").join(Uid::random().to_string())).unwrap();

    let report = look(folder.path()).unwrap();
    assert_eq!(
        phases(&report),
        [
            (1, Phase::Running, 50, true),
            (5, Phase::Running, 85, false),
            (2, Phase::Paused, 65, true),
            (3, Phase::Stopping, 75, true),
            (6, Phase::Waiting, 16, false),
            (4, Phase::Ended, 90, false),
        ]
    );
    let pids: Vec<_> = report.commands.iter().map(|one| one.pid).collect();
    assert_eq!(pids, [Some(4711), Some(4711), Some(4712), Some(4711), None, None]);
    assert_eq!(report.commands[0].streams.get("stdout"), Some(&5));
    assert_eq!((&report.commands[3].stuck, report.commands[5].outcome), (&vec![8, 9], Some("failed")));
    assert_eq!(report.commands[0].cgroup.as_deref(), Some(Path::new("/sys/fs/cgroup/x")));
    assert_eq!((report.kept, report.quarantined, report.journal), (1, 1, Some(state.journal().to_string())));
    assert!(report.agent.running && report.agent.pid == Some(i32::try_from(std::process::id()).unwrap()));
    assert_eq!((report.agent.max_running, report.agent.rung.as_deref()), (Some(3), Some("v2")));
    assert_eq!((report.disk.reserve, report.disk.reserve_wanted), (128 * 1024, Some(128 * 1024)));
    assert!(reserve.give_up());

    // Without an agent nobody knows who waits, and the reserve is what is there.
    drop(state);
    let report = look(folder.path()).unwrap();
    assert!(!report.agent.running && report.agent.pid.is_none() && report.disk.reserve == 0);
    assert_eq!(report.commands[4].phase, Phase::Accepted);
    assert_eq!(report.agent.name.as_deref(), Some("web1"), "what ran last is named");
}

#[test]
fn a_place_that_is_free_makes_nobody_wait() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    about(2).write(state.path()).unwrap();
    let (first, _second) = (put(&state, 1, 10), put(&state, 2, 20));
    let _running = start(&state, first, 50);
    assert_eq!(look(folder.path()).unwrap().commands[1].phase, Phase::Accepted);
}

#[test]
fn a_look_disturbs_neither_agent_nor_shim() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let uid = put(&state, 1, 10);
    let before = fs::metadata(state.command(uid).join("record")).unwrap().modified().unwrap();
    assert_eq!(look(folder.path()).unwrap().commands.len(), 1);
    assert!(RecordLock::try_take(&state.command(uid)).unwrap().is_some(), "the record's lock is free");
    assert_eq!(fs::metadata(state.command(uid).join("record")).unwrap().modified().unwrap(), before);
    drop(state);
    look(folder.path()).unwrap();
    assert!(StateDir::open(folder.path()).is_ok(), "an agent can start");
}

#[test]
fn what_is_not_there_damaged_or_not_ours_is_said() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(look(&folder.path().join("none")), Err(LookError::Missing(_))));
    assert!(matches!(look(folder.path()), Err(LookError::NotOne(_))));
    let state = StateDir::open(folder.path()).unwrap();
    let uid = put(&state, 1, 10);
    fs::write(state.command(uid).join("record"), b"nonsense").unwrap();
    let report = look(folder.path()).unwrap();
    assert!(report.commands.is_empty() && report.unreadable.len() == 1, "{report:?}");
    assert_eq!(report.unreadable[0].uid, uid.to_string());
}

#[test]
#[expect(clippy::print_stdout, reason = "what was not run is said")]
fn somebody_elses_directory_is_refused_in_a_clear_sentence() {
    let error = LookError::NotAllowed { path: "/var/lib/paprika-agent".into(), owner: 0 };
    assert_eq!(error.to_string(), "/var/lib/paprika-agent belongs to user 0: run this as that user or as root");
    if !rustix::process::geteuid().is_root() {
        println!("NOT RUN: only root can make a directory that belongs to somebody else");
        return;
    }
    // Whoever looks as root may look at anybody's.
    let folder = tempfile::tempdir().unwrap();
    drop(StateDir::open(folder.path()).unwrap());
    std::os::unix::fs::chown(folder.path(), Some(65_534), None).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(look(folder.path()).is_ok());
}
