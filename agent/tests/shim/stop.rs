//! Cancel and timeout mean gone.

use std::time::{Duration, Instant};

use common::model::Outcome;
use common::wire;

use super::kit::{BOUND, House, alive, argv, not_run, shell, wait_for};

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
    let Some(tree) = house.base.tree() else { return not_run("stop::parentage", "no cgroups here for us") };
    let away = tree.path.join("away");
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

/// The cancel meets the shim at other steps in every round: before its lock, before START, at the door, after it.
#[test]
fn a_cancel_at_any_moment_of_the_start_leaves_nothing_alive() {
    for house in House::both() {
        for round in 0..40 {
            let file = house.state.path().join(format!("pid-{round}"));
            let running = house.start(shell(&format!("echo $$ > {}; exec sleep 60", file.display())));
            let (asked, wait) = (Instant::now(), Duration::from_micros(round * 200));
            while asked.elapsed() < wait {
                std::hint::spin_loop();
            }
            running.cancel("", Some(if round % 2 == 0 { Duration::ZERO } else { BOUND }));
            let end = running.end();
            assert_eq!(end.outcome, Outcome::Cancelled, "round {round}: {end:?}");
            let pid = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
            assert!(pid.is_none_or(|pid| !alive(pid)), "round {round}");
            assert!(end.changed || !file.exists(), "round {round}: it ran and says that it did not");
        }
    }
}

#[test]
fn the_first_signal_is_the_one_that_was_asked_for() {
    for house in House::both() {
        for (number, name) in [(2, "INT"), (10, "USR1"), (1, "HUP")] {
            let line = format!("trap 'exit 7' {name}; trap 'exit 8' TERM; echo up; while :; do sleep 0.02; done");
            let running = house.start(wire::Command { stop_signal: number, ..shell(&line) });
            running.wait_for_output("up");
            running.cancel("", Some(BOUND));
            assert_eq!(running.end().exit_code, Some(7), "{name}");
        }
        let running = house.start(wire::Command { stop_signal: 35, ..shell("echo up; while :; do sleep 0.02; done") });
        running.wait_for_output("up");
        running.cancel("", Some(BOUND));
        assert_eq!(running.end().signal, Some(35), "a real-time signal is a number");
    }
}

#[test]
fn the_main_process_alone_is_asked_and_the_rest_follows_it() {
    for house in House::both() {
        let line = "(trap 'echo child' TERM; echo a; while :; do sleep 0.02; done) & \
                    trap 'echo main; sleep 0.2; exit 3' TERM; echo b; while :; do sleep 0.02; done";
        let running = house.start(wire::Command { stop_only_main: true, ..shell(line) });
        running.wait_for_output("a\n");
        running.wait_for_output("b\n");
        running.cancel("", Some(BOUND));
        let dir = running.dir.clone();
        let asked = Instant::now();
        let end = running.end();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Cancelled, Some(3)));
        assert!(asked.elapsed() < BOUND, "nobody waits for those that were not asked");
        let out = super::kit::read_all(&dir, common::model::StreamName::Stdout);
        let out = String::from_utf8_lossy(&out).into_owned();
        assert!(out.contains("main") && !out.contains("child"), "{out}");
    }
}

#[test]
fn the_grace_of_the_command_holds_where_a_cancel_names_none_and_at_a_timeout() {
    let house = House::new();
    let stubborn = || shell("trap '' TERM; echo up; while :; do sleep 0.02; done");
    let grace = |command| wire::Command { grace_ms: 200, has_grace: true, ..command };
    let running = house.start(grace(stubborn()));
    running.wait_for_output("up");
    let asked = Instant::now();
    running.cancel("", None);
    assert_eq!(running.end().signal, Some(9));
    assert!(asked.elapsed() >= SOON && asked.elapsed() < common::limits::DEFAULT_GRACE);
    let end = house.run(wire::Command { timeout_ms: 300, ..grace(stubborn()) });
    assert_eq!((end.outcome, end.signal), (Outcome::TimedOut, Some(9)));
    assert!(end.duration_us >= 500_000 && end.duration_us < 9_000_000, "{}", end.duration_us);
}

#[test]
fn the_clock_of_the_wall_moves_no_timeout() {
    if !cfg!(debug_assertions) {
        return;
    }
    let house = House::with("none");
    let uid =
        house.accept(wire::Command { timeout_ms: 400, ..shell("trap 'exit 0' TERM; while :; do sleep 0.02; done") });
    let dir = house.state.command(uid);
    let offset = house.state.path().join("offset");
    std::fs::write(&offset, "86400000").unwrap();
    let mut shim = std::process::Command::new(super::kit::exe())
        .arg("shim")
        .arg(&dir)
        .env_clear()
        .env("PAPRIKA_CLOCK_OFFSET_FILE", &offset)
        .spawn()
        .unwrap();
    let history = || agent::commands::record::read(&dir).unwrap();
    wait_for("START", || history().start.is_some());
    std::fs::write(&offset, "-86400000").unwrap();
    assert!(shim.wait().unwrap().success());
    let end = history().end.unwrap();
    assert_eq!(end.outcome, Outcome::TimedOut);
    assert!((400_000..10_000_000).contains(&end.duration_us), "{}", end.duration_us);
    assert!(end.finished_ms < end.started_ms, "the wall says what it says");
}
