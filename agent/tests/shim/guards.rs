//! Guards decide whether the main process is needed, and are as fenced and as stoppable as it is.

use std::time::Duration;

use agent::commands::{End, record};
use common::model::{Outcome, StreamName};
use common::wire;
use serde_json::{Value, json};

use super::kit::{BOUND, House, alive, is_root, read_all, run_args, script, text, wait_for};

fn value(end: &End) -> Value {
    serde_json::from_str(&end.value).unwrap_or_default()
}

#[test]
fn what_is_not_needed_is_skipped_and_says_by_which_guard() {
    for house in House::both() {
        let here = house.state.path().display().to_string();
        let marker = house.state.path().join("ran");
        for (guard, asked, text) in [
            ("creates", json!(here), format!("{here} exists")),
            ("removes", json!("/no/such/thing"), "/no/such/thing does not exist".to_owned()),
            ("unless", json!("echo noise; echo noise >&2; true"), "it succeeded: ".to_owned()),
            ("only_if", json!(["sh", "-c", "exit 7"]), "it ended with 7: ".to_owned()),
        ] {
            let touch = format!("touch {}", marker.display());
            let uid = house.accept(run_args(json!({"shell": touch, guard: asked})));
            let end = house.launch(uid).end();
            assert_eq!(
                (end.outcome, end.changed, end.exit_code),
                (Outcome::Succeeded, false, None),
                "{guard}: {end:?}"
            );
            assert_eq!(end.flags, ["skipped"]);
            assert_eq!(value(&end)["skipped"], guard);
            assert!(value(&end)["text"].as_str().unwrap().starts_with(&text), "{}", end.value);
            assert!(end.streams.is_empty() && end.started_ms > 0 && end.error.is_none());
            assert_eq!(end.isolation, house.base.isolation());
            assert!(!marker.exists(), "{guard}");
        }
    }
}

#[test]
fn what_all_guards_let_through_runs_once_with_its_own_facts() {
    for house in House::both() {
        let here = house.state.path().display().to_string();
        let command = run_args(json!({
            "shell": "echo main; exit 3", "creates": "/no/such/thing", "removes": here,
            "unless": ["false"], "only_if": "echo guard; test -t 0 && exit 9; true",
        }));
        let uid = house.accept(command);
        let end = house.launch(uid).end();
        assert_eq!((end.outcome, end.changed, end.exit_code), (Outcome::Failed, true, Some(3)));
        assert!(end.flags.is_empty() && end.value.is_empty() && end.error.is_none(), "{end:?}");
        assert_eq!(text(&house, uid, StreamName::Stdout), "main\n");
        let history = record::read(&house.state.command(uid)).unwrap();
        assert_eq!(history.start.unwrap().at_ms, end.started_ms);
    }
}

#[test]
fn a_guard_that_gives_no_answer_is_a_failure_of_its_own() {
    let house = House::new();
    let plain = house.state.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    for (guard, asked, word) in [
        ("unless", json!(["/no/such/program"]), "ENOENT"),
        ("only_if", json!(["no-such-program"]), "looked for in /usr"),
        ("unless", json!("kill -9 $$"), "signal 9"),
        ("creates", json!(format!("/{}", "x".repeat(300))), "ENAMETOOLONG"),
    ] {
        let end = house.run(run_args(json!({"run": ["true"], guard: asked})));
        assert_eq!((end.outcome, end.changed, end.exit_code), (Outcome::Failed, false, None));
        let error = end.error.unwrap();
        assert_eq!(error.code, "guard");
        assert!(error.text.contains(word) && error.text.contains(guard), "{}", error.text);
    }
    // What a file stands in the way of does not exist.
    let below = format!("{}/x", plain.display());
    assert_eq!(house.run(run_args(json!({"run": ["true"], "removes": below}))).flags, ["skipped"]);
}

#[test]
fn a_guard_looks_with_the_eyes_of_the_user_that_the_command_runs_as() {
    if !is_root("guards::another_user") {
        return;
    }
    let house = House::new();
    let secret = house.state.path().join("secret").display().to_string();
    std::fs::write(&secret, "").unwrap();
    for (guard, asked) in [("creates", json!(secret)), ("unless", json!(["test", "-e", secret]))] {
        let mut command = run_args(json!({"run": ["id", "-un"], guard: asked}));
        command.user = "nobody".into();
        let uid = house.accept(command);
        let end = house.launch(uid).end();
        if guard == "creates" {
            let error = end.error.unwrap();
            assert!(error.code == "guard" && error.text.contains("EACCES"), "{error:?}");
        } else {
            assert_eq!(text(&house, uid, StreamName::Stdout), "nobody\n");
        }
    }
}

#[test]
fn a_cancel_ends_a_guard_and_nothing_else_is_started() {
    for house in House::both() {
        let marker = house.state.path().join("ran");
        let pid = house.state.path().join("pid");
        let line =
            format!("echo $$ > {0}.new; mv {0}.new {0}; trap '' TERM; while :; do sleep 0.05; done", pid.display());
        let touch = format!("touch {}", marker.display());
        let running = house.start(run_args(json!({"shell": touch, "only_if": line})));
        wait_for("the guard", || pid.exists());
        running.cancel("enough", Some(Duration::from_millis(100)));
        let end = running.end();
        assert_eq!((end.outcome, end.changed, end.exit_code, end.signal), (Outcome::Cancelled, false, None, None));
        assert_eq!(end.cancelled_by, "admin");
        let guard: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        assert!(!alive(guard) && !marker.exists());
    }
}

#[test]
fn the_time_of_guards_counts() {
    let house = House::new();
    let marker = house.state.path().join("ran");
    let mut command = run_args(json!({"shell": format!("touch {}", marker.display()), "unless": "sleep 60"}));
    (command.timeout_ms, command.grace_ms, command.has_grace) = (200, 0, true);
    let end = house.run(command);
    assert_eq!((end.outcome, end.changed), (Outcome::TimedOut, false));
    assert_eq!(end.error.unwrap().code, "timeout");
    assert!(end.duration_us >= 200_000 && end.duration_us < u64::try_from(BOUND.as_micros()).unwrap());
    assert!(!marker.exists());
}

#[test]
fn what_a_guard_leaves_behind_is_killed_and_the_main_process_is_not() {
    for house in House::both() {
        let pid = house.state.path().join("pid");
        let guard = format!("setsid sleep 60 > /dev/null 2>&1 & echo $! > {}; true", pid.display());
        let check = format!("kill -0 $(cat {}) 2>/dev/null && echo there || echo gone", pid.display());
        let uid = house.accept(run_args(json!({"shell": check, "only_if": guard})));
        let end = house.launch(uid).end();
        assert_eq!(
            (end.outcome, text(&house, uid, StreamName::Stdout)),
            (Outcome::Succeeded, "gone\n".to_owned()),
            "{end:?}"
        );
        assert!(end.flags.is_empty(), "{:?}", end.flags);
    }
}

#[test]
fn guards_stand_before_scripts_too_and_their_main_process_is_named() {
    let house = House::new();
    let running = house.start(script(json!({"content": "echo $$; while :; do sleep 0.05; done", "only_if": ["true"]})));
    wait_for("its number", || !running.pids().is_empty());
    let status = agent::commands::status::read(&running.dir).unwrap();
    assert_eq!(status.pid.cast_signed(), running.pids()[0]);
    assert_ne!(running.history().start.unwrap().pid, status.pid);
    running.cancel("", Some(Duration::ZERO));
    assert_eq!(running.end().outcome, Outcome::Cancelled);
}

#[test]
fn a_shim_that_is_killed_behind_a_guard_leaves_nothing_alive() {
    for house in House::both() {
        let command = wire::Command {
            timeout_ms: 0,
            ..run_args(
                json!({"shell": "echo $$; (setsid sleep 60 & echo $!); while :; do sleep 60; done", "only_if": ["true"]}),
            )
        };
        let mut running = house.start(command);
        wait_for("two pids", || running.pids().len() == 2);
        let pids = running.pids();
        running.kill_shim();
        house.recover_gone(running.uid);
        wait_for("their end", || pids.iter().all(|pid| !alive(*pid)));
        assert!(!read_all(&running.dir, StreamName::Stdout).is_empty());
    }
}
