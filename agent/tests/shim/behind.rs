//! What a command was allowed to leave behind lives its own life: it writes on, is nobody's to kill, and leaves no cgroup.

use std::fs;
use std::process::{Command, Stdio};

use agent::commands::record;
use agent::commands::recover::{Recovered, sweep_cgroups};
use agent::shim::process;
use common::id::Uid;
use common::model::{Outcome, StreamName};
use common::wire;
use rustix::process::{Pid, Signal, kill_process};

use super::kit::{House, alive, exe, shell, text, wait_for};
use super::rungs::each;

/// What the stray writes at a time, and the most that the kernel lets a pipe hold.
const BLOCK: u64 = 32_768;
const PIPE: u64 = 1024 * 1024;

/// A shim that waits only a quarter of a second for the streams of what stays, which a debug build can be told.
fn run_with_a_short_wait(house: &House, uid: Uid) {
    let mut command = Command::new(exe());
    command.arg("shim").arg(house.state.command(uid)).env_clear().env("PAPRIKA_STRAY_DRAIN_MS", "250");
    if let Some(place) = house.base.place(uid) {
        command.env("PAPRIKA_SHIM_PLACE", serde_json::to_string(&place).unwrap()).env("PAPRIKA_SHIM_JOIN", "1");
    }
    assert!(command.stdin(Stdio::null()).status().unwrap().success());
}

#[test]
fn what_was_kept_writes_on_and_its_cgroup_goes_when_it_has_gone_on_each_rung() {
    if !cfg!(debug_assertions) {
        return;
    }
    for house in each("behind") {
        let rung = house.base.rung();
        let (go, marks) = (house.state.path().join("go"), house.state.path().join("marks"));
        let line = format!(
            "(while [ ! -e {} ]; do printf '%032767d\\n' 1; echo x >>{}; sleep 0.002; done) & echo \"stray $!\"; exit 3",
            go.display(),
            marks.display()
        );
        let uid = house.accept(wire::Command { keep_strays: true, ..shell(&line) });
        run_with_a_short_wait(&house, uid);
        let end = record::read(&house.state.command(uid)).unwrap().end.unwrap();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(3)), "{rung}");
        assert_eq!(end.flags, ["strays_kept", "output_cut"], "{rung}");
        let said = text(&house, uid, StreamName::Stdout);
        let stray: i32 = said.lines().find_map(|line| line.strip_prefix("stray ")?.parse().ok()).unwrap();
        let began = process::stat(stray).unwrap().start_time;

        // Neither recovery nor the sweep of a new agent takes it, or the group it lives in.
        for forgotten in [false, true] {
            assert!(matches!(house.recover(uid), Recovered::Ended(_)));
            if forgotten {
                fs::remove_dir_all(house.state.command(uid)).unwrap();
            }
            sweep_cgroups(&house.state, &house.base);
            assert!(alive(stray), "{rung}");
            let group = house.base.of(uid);
            assert!(group.is_none_or(|group| group.join("work").is_dir()), "{rung}");
        }
        // A pipe without a reader would kill it at once, one that nobody reads would hold it after a mebibyte.
        let written = || fs::metadata(&marks).unwrap().len() / 2 * BLOCK;
        let before = written();
        wait_for("it to write on", || written() > before + 2 * PIPE);

        fs::write(&go, "").unwrap();
        wait_for("its end", || process::stat(stray).is_none_or(|stat| stat.zombie || stat.start_time != began));
        let gone = || {
            sweep_cgroups(&house.state, &house.base);
            house.base.of(uid).is_none_or(|group| !group.exists())
        };
        wait_for(&format!("its cgroup to go, {rung}"), gone);
        // It ended by itself, nobody has to clear up behind the test.
        if let Some(left) = Pid::from_raw(stray).filter(|_| alive(stray)) {
            let same = process::stat(stray).is_some_and(|stat| stat.start_time == began);
            assert!(!same || kill_process(left, Signal::KILL).is_err(), "{rung}");
        }
    }
}
