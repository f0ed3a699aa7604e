//! Whatever is killed when: nothing runs twice, nothing lives on, every command ends once.

use agent::commands::recover::{Recovered, cancel_before_start};
use agent::commands::segment;
use common::model::{Outcome, StreamName};

use super::kit::{House, alive, not_run, shell, wait_for};

#[test]
fn a_killed_shim_takes_its_command_with_it_and_the_output_stays() {
    for house in House::both() {
        let mut running =
            house.start(shell("trap '' TERM HUP; (setsid sleep 60 & echo $!); echo $$; while :; do sleep 60; done"));
        wait_for("two pids", || running.pids().len() == 2);
        let pids = running.pids();
        assert_eq!(house.recover(running.uid), Recovered::Held);
        running.kill_shim();
        let Recovered::Ended(end) = house.recover(running.uid) else { panic!("not ended") };
        assert_eq!(end.outcome, Outcome::Interrupted);
        assert_eq!(end.error.as_ref().unwrap().code, "shim_killed");
        assert!(end.lower_bounds);
        assert_eq!(end.length(StreamName::Stdout), segment::length(&running.dir, StreamName::Stdout).unwrap());
        assert!(end.length(StreamName::Stdout) > 0);
        assert!(pids.iter().all(|pid| !alive(*pid)), "{pids:?}");
        assert_eq!(house.recover(running.uid), Recovered::Ended(end));
        assert!(house.base.of(running.uid).is_none_or(|group| !group.exists()));
    }
}

#[test]
fn the_watch_on_wake_sees_a_killed_shim() {
    let house = House::new();
    let mut running = house.start(shell("echo up; sleep 60"));
    running.wait_for_output("up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let watch = agent::commands::request::WakeWatch::open(&running.dir).unwrap().unwrap();
        running.kill_shim();
        tokio::time::timeout(super::kit::BOUND, watch.gone()).await.unwrap().unwrap();
    });
    assert!(matches!(house.recover(running.uid), Recovered::Ended(_)));
}

/// At each point at which a shim can die: what the next look finds, and whether the program has run.
#[test]
fn a_shim_that_dies_at_any_step_leaves_one_truth() {
    if !cfg!(debug_assertions) {
        return;
    }
    for house in House::both() {
        for (point, ran, ended) in [
            ("shim.start.before", false, None),
            ("shim.start.after", false, Some(Outcome::Interrupted)),
            ("shim.streams.before", true, Some(Outcome::Interrupted)),
            ("shim.streams.after", true, Some(Outcome::Interrupted)),
            ("shim.end.before", true, Some(Outcome::Interrupted)),
            ("shim.end.after", true, Some(Outcome::Succeeded)),
        ] {
            let marker = house.state.path().join(format!("ran-{point}"));
            let uid = house.accept(shell(&format!("echo x >> {0}; cat {0}", marker.display())));
            house.run_crashing(uid, point);
            let count = || std::fs::read_to_string(&marker).unwrap_or_default().lines().count();
            assert_eq!(count(), usize::from(ran), "{point}");
            match (house.recover_gone(uid), ended) {
                (Recovered::Respawn, None) => {
                    assert_eq!(house.launch(uid).end().outcome, Outcome::Succeeded);
                    assert_eq!(count(), 1, "{point}");
                }
                (Recovered::Ended(end), Some(outcome)) => {
                    assert_eq!(end.outcome, outcome, "{point}");
                    // Another shim changes nothing any more.
                    assert_eq!(house.launch(uid).end(), *end);
                    assert_eq!(count(), usize::from(ran), "{point}");
                }
                (found, _) => panic!("{point}: {found:?}"),
            }
        }
    }
}

#[test]
fn a_cancelled_command_is_not_started_by_a_late_shim() {
    let house = House::new();
    let marker = house.state.path().join("ran");
    let uid = house.accept(shell(&format!("touch {}", marker.display())));
    let end = cancel_before_start(&house.state.command(uid), "admin", "no").unwrap().unwrap();
    assert_eq!(house.launch(uid).end(), end);
    assert!(!marker.exists());
}

#[test]
fn cgroups_do_not_pile_up() {
    let house = House::new();
    let Some(base) = house.base.tree().map(|tree| tree.path.clone()) else {
        return not_run("crash::pile_up", "no cgroups here for us");
    };
    for _ in 0..20 {
        let running = house.start(shell("true"));
        let uid = running.uid;
        running.end();
        assert!(matches!(house.recover(uid), Recovered::Ended(_)));
    }
    let left = std::fs::read_dir(&base).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(left, 0);
}
