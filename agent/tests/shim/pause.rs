//! Paused means that nothing of the command moves and that its time stands still; a stop works all the same.

use std::time::{Duration, Instant};

use agent::commands::status::ShimPhase;
use common::model::{Outcome, StreamName};
use serde_json::json;

use super::kit::{BOUND, House, Running, alive, read_all, run_args, shell, wait_for};

/// Counts, with a helper that left the session.
const COUNT: &str = "(setsid sh -c 'while :; do echo b; sleep 0.01; done' &) ; while :; do echo a; sleep 0.01; done";

/// Whether nothing is written for a while: bytes that were under way are let through first.
#[expect(clippy::disallowed_methods, reason = "that nothing happens can only be seen by looking twice")]
fn stands_still(running: &Running<'_>) -> bool {
    let mut last = running.length();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        let now = running.length();
        if std::mem::replace(&mut last, now) == now {
            return true;
        }
    }
    false
}

#[test]
fn everything_stands_still_until_it_goes_on() {
    for house in House::both() {
        let running = house.start(shell(COUNT));
        running.wait_for_output("b");
        running.pause(1, true);
        running.wait_for_phase(ShimPhase::Paused);
        assert!(stands_still(&running), "{}", house.base.isolation());
        let before = running.length();
        running.pause(2, false);
        running.wait_for_phase(ShimPhase::Running);
        wait_for("more", || running.length() > before + 10);
        running.cancel("", Some(Duration::ZERO));
        assert_eq!(running.end().outcome, Outcome::Cancelled);
    }
}

#[test]
fn an_older_wish_changes_nothing() {
    let house = House::new();
    let running = house.start(shell("echo up; sleep 60"));
    running.wait_for_output("up");
    running.pause(5, true);
    running.wait_for_phase(ShimPhase::Paused);
    running.pause(4, false);
    assert!(stands_still(&running));
    assert_eq!(running.phase(), ShimPhase::Paused);
    running.cancel("", Some(Duration::ZERO));
    assert_eq!(running.end().outcome, Outcome::Cancelled);
}

#[test]
fn the_timeout_does_not_run_while_it_is_paused() {
    for house in House::both() {
        let mut command = shell("echo up; while :; do sleep 0.02; done");
        (command.timeout_ms, command.grace_ms, command.has_grace) = (1_000, 0, true);
        let running = house.start(command);
        running.wait_for_output("up");
        running.pause(1, true);
        running.wait_for_phase(ShimPhase::Paused);
        let paused = Instant::now();
        wait_for("twice the timeout", || paused.elapsed() > Duration::from_secs(2));
        assert!(running.history().end.is_none());
        running.pause(2, false);
        let end = running.end();
        assert_eq!((end.outcome, end.signal), (Outcome::TimedOut, Some(9)));
        assert!(end.duration_us >= 3_000_000, "{}", end.duration_us);
    }
}

#[test]
fn a_paused_command_hears_the_first_signal_of_a_cancel() {
    for house in House::both() {
        let running = house.start(shell("trap 'echo heard; exit 5' TERM; echo up; while :; do sleep 0.02; done"));
        running.wait_for_output("up");
        running.pause(1, true);
        running.wait_for_phase(ShimPhase::Paused);
        running.cancel("", Some(BOUND));
        let dir = running.dir.clone();
        let end = running.end();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Cancelled, Some(5)), "{}", house.base.isolation());
        assert!(read_all(&dir, StreamName::Stdout).ends_with(b"heard\n"));
    }
}

#[test]
fn a_paused_command_that_ignores_everything_is_gone_after_the_grace() {
    for house in House::both() {
        let running =
            house.start(shell("trap '' TERM; echo $$; (setsid sleep 60 & echo $!); while :; do sleep 0.02; done"));
        wait_for("two pids", || running.pids().len() == 2);
        let pids = running.pids();
        running.pause(1, true);
        running.wait_for_phase(ShimPhase::Paused);
        running.cancel("", Some(Duration::from_millis(100)));
        assert_eq!(running.end().signal, Some(9));
        assert!(pids.iter().all(|pid| !alive(*pid)));
    }
}

#[test]
fn what_is_paused_before_its_start_starts_paused() {
    for house in House::both() {
        for command in [shell("echo ran"), run_args(json!({"shell": "echo ran", "only_if": "true", "unless": "false"}))]
        {
            let uid = house.accept(command);
            let dir = house.state.command(uid);
            let wish = agent::commands::request::PauseRequest { wish: 1, paused: true, by: "admin".into() };
            agent::commands::request::pause(&dir, &wish).unwrap();
            let running = house.launch(uid);
            running.wait_for_phase(ShimPhase::Paused);
            assert!(running.history().start.is_some());
            assert!(stands_still(&running) && running.length() == 0);
            running.pause(2, false);
            let end = running.end();
            assert_eq!((end.outcome, end.length(StreamName::Stdout)), (Outcome::Succeeded, 4));
        }
    }
}
