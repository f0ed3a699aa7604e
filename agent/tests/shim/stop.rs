//! Cancel and timeout mean gone.

use std::time::{Duration, Instant};

use common::model::Outcome;
use common::wire;

use super::kit::{BOUND, House, alive, argv, shell, wait_for};

const SOON: Duration = Duration::from_millis(200);

#[test]
fn a_polite_program_ends_as_it_likes_and_its_code_is_kept() {
    for house in House::both() {
        let running = house.start(shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"));
        running.wait_for_output("up");
        running.cancel("enough", Some(BOUND));
        let end = running.end();
        assert_eq!((end.outcome, end.exit_code, end.signal), (Outcome::Cancelled, Some(3), None));
        assert_eq!((end.cancelled_by.as_str(), end.cancel_reason.as_str()), ("admin", "enough"));
    }
}

#[test]
fn who_ignores_term_is_killed_when_the_grace_is_over_and_not_before() {
    for house in House::both() {
        let running = house.start(shell("trap '' TERM; echo up; while :; do sleep 0.05; done"));
        running.wait_for_output("up");
        let asked = Instant::now();
        running.cancel("", Some(SOON));
        let end = running.end();
        assert!(asked.elapsed() >= SOON);
        assert_eq!((end.outcome, end.exit_code, end.signal), (Outcome::Cancelled, None, Some(9)));
    }
}

#[test]
fn a_second_request_skips_the_grace() {
    let house = House::new();
    let running = house.start(shell("trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"));
    running.wait_for_output("up");
    running.cancel("please", Some(Duration::from_secs(3600)));
    running.wait_for_output("asked");
    running.cancel("now", None);
    let end = running.end();
    assert_eq!((end.outcome, end.signal, end.cancel_reason.as_str()), (Outcome::Cancelled, Some(9), "please"));
}

#[test]
fn no_grace_is_a_kill_at_once() {
    let house = House::new();
    let running = house.start(shell("trap 'echo heard' TERM; echo up; while :; do sleep 0.05; done"));
    running.wait_for_output("up");
    running.cancel("", Some(Duration::ZERO));
    let dir = running.dir.clone();
    assert_eq!(running.end().signal, Some(9));
    assert!(!String::from_utf8_lossy(&super::kit::read_all(&dir, common::model::StreamName::Stdout)).contains("heard"));
}

#[test]
fn nothing_that_was_forked_away_survives_a_cancel() {
    for house in House::both() {
        let running = house.start(shell(
            "trap '' TERM; \
             setsid sh -c 'trap \"\" TERM; (setsid sh -c \"trap : TERM; echo \\$\\$; while :; do sleep 60; done\") & echo $$; while :; do sleep 60; done' & \
             (sh -c 'echo $$; exec sleep 60' &) ; echo $$; while :; do sleep 60; done",
        ));
        wait_for("four pids", || running.pids().len() == 4);
        let pids = running.pids();
        assert!(pids.iter().all(|pid| alive(*pid)));
        running.cancel("", Some(SOON));
        assert_eq!(running.end().outcome, Outcome::Cancelled);
        let survivors: Vec<_> = pids.into_iter().filter(|pid| alive(*pid)).collect();
        assert!(survivors.is_empty(), "{survivors:?} with {}", house.base.isolation());
    }
}

#[test]
fn a_storm_of_forks_is_stopped() {
    for house in House::both() {
        let running = house.start(shell("echo up; while :; do (sleep 5 &) ; sleep 0.01; done"));
        running.wait_for_output("up");
        running.cancel("", Some(Duration::ZERO));
        let uid = running.uid;
        assert_eq!(running.end().outcome, Outcome::Cancelled);
        if let Some(group) = house.base.of(uid) {
            assert!(!agent::shim::cgroup::populated(&group.join("work")));
        }
    }
}

#[test]
fn what_a_main_process_leaves_behind_is_killed_with_its_end() {
    for house in House::both() {
        let running = house.start(shell("(trap '' HUP TERM; setsid sleep 60 & echo $!) ; exit 4"));
        let dir = running.dir.clone();
        let began = Instant::now();
        let end = running.end();
        assert!(began.elapsed() < BOUND);
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(4)));
        assert_eq!(end.flags, ["strays_killed"]);
        let pid: i32 = String::from_utf8(super::kit::read_all(&dir, common::model::StreamName::Stdout))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(!alive(pid));
    }
}

#[test]
fn who_left_the_cgroup_is_found_by_parentage() {
    let house = House::new();
    let agent::shim::Base::Cgroup(base) = &house.base else { return };
    let away = base.join("away");
    std::fs::create_dir(&away).unwrap();
    let running = house.start(shell(&format!(
        "sh -c 'echo 0 > {}/cgroup.procs; echo $$; exec sleep 60' & while :; do sleep 60; done",
        away.display()
    )));
    wait_for("the pid", || running.pids().len() == 1);
    let pid = running.pids()[0];
    running.cancel("", Some(Duration::ZERO));
    let end = running.end();
    assert!(!alive(pid));
    assert_eq!(end.flags, ["escaped"]);
    std::fs::remove_dir(&away).unwrap();
}

#[test]
fn a_stopped_program_is_woken_to_hear_that_it_shall_end() {
    for house in House::both() {
        let running =
            house.start(shell("trap 'echo bye; exit 5' TERM; echo $$; kill -STOP $$; while :; do sleep 0.05; done"));
        wait_for("the program to stop", || {
            running.pids().first().is_some_and(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/status"))
                    .is_ok_and(|status| status.contains("T (stopped)"))
            })
        });
        running.cancel("", Some(BOUND));
        assert_eq!(running.end().exit_code, Some(5));
    }
}

#[test]
fn a_timeout_stays_a_timeout_whatever_the_program_answers() {
    for house in House::both() {
        let command = shell("trap 'exit 0' TERM; while :; do sleep 0.02; done");
        let end = house.run(wire::Command { timeout_ms: 150, ..command });
        assert_eq!((end.outcome, end.exit_code), (Outcome::TimedOut, Some(0)));
        assert_eq!(end.error.as_ref().map(|error| error.code.as_str()), Some("timeout"));
        assert!(end.duration_us >= 150_000);
    }
    let house = House::new();
    let end = house.run(wire::Command { timeout_ms: 20_000, ..argv(&["true"]) });
    assert_eq!(end.outcome, Outcome::Succeeded);
}

#[test]
fn a_cancel_that_was_there_before_the_shim_runs_nothing() {
    let house = House::new();
    let marker = house.state.path().join("ran");
    let uid = house.accept(shell(&format!("touch {}", marker.display())));
    let request =
        agent::commands::request::CancelRequest { by: "admin".into(), reason: "early".into(), grace_ms: None };
    agent::commands::request::cancel(&house.state.command(uid), &request).unwrap();
    let end = house.launch(uid).end();
    assert_eq!((end.outcome, end.cancel_reason.as_str(), end.changed), (Outcome::Cancelled, "early", false));
    assert!(!marker.exists());
}

#[test]
fn terminate_signals_to_the_shim_itself_do_nothing() {
    let house = House::new();
    let running = house.start(shell("echo up; sleep 0.3; exit 6"));
    running.wait_for_output("up");
    let shim = agent::shim::process::stat(i32::try_from(running.history().start.unwrap().pid).unwrap()).unwrap().parent;
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP, rustix::process::Signal::INT] {
        rustix::process::kill_process(rustix::process::Pid::from_raw(shim).unwrap(), signal).unwrap();
    }
    assert_eq!(running.end().exit_code, Some(6));
}
