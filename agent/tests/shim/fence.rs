//! What holds a command together, in each way that this machine offers: kill, limits, recovery, the end of the host.
//!
//! A way that this machine does not have is said and skipped. Bombs fork within a limit of tasks or a number of their own.

use std::time::{Duration, Instant};

use agent::commands::End;
use agent::commands::recover::{Recovered, sweep_cgroups};
use agent::hold;
use agent::shim::{Base, cgroup};
use common::id::Uid;
use common::model::{Outcome, StreamName};
use common::wire::{Command, CommandLimits};

use super::kit::{BOUND, House, Running, alive, read_all, shell, wait_for};

/// Tasks of a bomb.
const BOMB: u32 = 100;
/// Forks and goes on trying where it may not.
const FORK_BOMB: &str = "echo up; exec perl -e 'for (;;) { fork }'";
/// Eight processes, of which each is replaced by its own child all the time: none can be caught by its number. They give
/// up by themselves after some thousand generations, and they rest: who collects their dead is not always a shim.
const RUNAWAYS: &str =
    "echo up; exec perl -e 'fork for 1..3; for (1..5000) { exit if fork; select undef, undef, undef, 0.002 }'";

/// The ways to hold processes that this machine has, the one without cgroups last.
#[expect(clippy::print_stdout, reason = "what was not run is said")]
fn each() -> Vec<House> {
    let can = |choice: &&str| match Base::discover(choice, Uid::random()) {
        Ok(_) => true,
        Err(error) => {
            println!("NOT RUN with cgroup `{choice}`: {error}");
            false
        }
    };
    ["v2", "v2-freezer", "v1", "none"].into_iter().filter(can).map(House::with).collect()
}

/// Those with cgroups.
fn fenced() -> Vec<House> {
    each().into_iter().filter(|house| house.base.tree().is_some()).collect()
}

fn limited(line: &str, limits: CommandLimits) -> Command {
    Command { limits: Some(limits), ..shell(line) }
}

fn flags(end: &End) -> Vec<&str> {
    end.flags.iter().map(String::as_str).collect()
}

fn assert_empty(house: &House, uid: Uid) {
    if let Some(group) = house.base.of(uid) {
        assert!(!cgroup::populated(&group.join("work")), "{}", house.base.rung());
    }
}

#[test]
fn what_forks_away_stops_and_ignores_is_gone_after_a_cancel_in_each_way() {
    for house in each() {
        let running = house.start(shell(
            "trap '' TERM; \
             setsid sh -c 'trap \"\" TERM; (setsid sh -c \"echo \\$\\$; kill -STOP \\$\\$; sleep 60\") & echo $$; sleep 60' & \
             (sh -c 'echo $$; exec sleep 60' &) ; echo $$; while :; do sleep 60; done",
        ));
        wait_for("four pids", || running.pids().len() == 4);
        let pids = running.pids();
        running.cancel("", Some(Duration::from_millis(200)));
        let uid = running.uid;
        let end = running.end();
        assert_eq!((end.outcome, end.signal), (Outcome::Cancelled, Some(9)), "{}", house.base.rung());
        assert_eq!(end.isolation, house.base.isolation());
        let survivors: Vec<_> = pids.into_iter().filter(|pid| alive(*pid)).collect();
        assert!(survivors.is_empty(), "{survivors:?} with {}", house.base.rung());
        assert_empty(&house, uid);
    }
}

#[test]
fn a_fork_bomb_hits_its_limit_and_is_gone_after_a_cancel_in_each_way() {
    for house in fenced() {
        let running = house.start(limited(FORK_BOMB, CommandLimits { tasks: BOMB, ..Default::default() }));
        running.wait_for_output("up");
        let work = house.base.of(running.uid).unwrap().join("work");
        wait_for("the bomb to grow", || cgroup::Pen::found(work.clone()).processes().len() >= BOMB as usize);
        running.cancel("", Some(Duration::ZERO));
        let uid = running.uid;
        let end = running.end();
        assert_eq!((end.outcome, flags(&end)), (Outcome::Cancelled, Vec::new()), "{}", house.base.rung());
        assert!(end.tasks_peak == 0 || end.tasks_peak == u64::from(BOMB), "{}", end.tasks_peak);
        assert_empty(&house, uid);
    }
}

#[test]
fn processes_that_change_their_numbers_all_the_time_are_caught_in_each_way() {
    for house in each() {
        let running = house.start(shell(RUNAWAYS));
        running.wait_for_output("up");
        running.cancel("", Some(Duration::ZERO));
        let uid = running.uid;
        let end = running.end();
        // Its main process has always ended already.
        assert!(matches!(end.outcome, Outcome::Cancelled | Outcome::Succeeded), "{end:?}");
        assert_empty(&house, uid);
        let mark = format!("PAPRIKA_COMMAND_UID={uid}");
        assert_eq!(carriers(&mark), Vec::<i32>::new(), "{}", house.base.rung());
    }
}

/// Living processes with that variable.
fn carriers(variable: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| alive(*pid))
        .filter(|pid| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
        })
        .collect()
}

#[test]
fn a_hog_of_memory_ends_with_oom_and_any_other_kill_without_in_each_way() {
    for house in fenced() {
        let limits = CommandLimits { memory_max: 16 << 20, ..Default::default() };
        let end = house.run(limited("exec tail /dev/zero", limits));
        assert_eq!((end.outcome, end.signal, end.oom), (Outcome::Failed, Some(9), true), "{}", house.base.rung());
        assert!(flags(&end).is_empty(), "{:?}", end.flags);
        assert!((8 << 20..=16 << 20).contains(&end.memory_peak), "{}", end.memory_peak);
        let end = house.run(limited("kill -9 $$", limits));
        assert_eq!((end.signal, end.oom), (Some(9), false));
        let end = house.run(limited("exit 137", limits));
        assert_eq!((end.exit_code, end.signal, end.oom), (Some(137), None, false));
    }
}

#[test]
fn a_victim_among_the_children_is_reported_and_a_polite_main_process_keeps_its_code() {
    for house in fenced() {
        let limits = CommandLimits { memory_max: 16 << 20, ..Default::default() };
        let end = house.run(limited("tail /dev/zero; exit 5", limits));
        assert!(end.oom, "{}", house.base.rung());
        // Where the kernel takes the whole group the main process dies with its child.
        assert!(end.exit_code == Some(5) || end.signal == Some(9), "{end:?}");
    }
}

#[test]
fn a_spinner_gets_its_share_of_a_core_and_no_more() {
    for house in fenced() {
        let limits = CommandLimits { cpu_percent: 30, ..Default::default() };
        let command = Command { timeout_ms: 1_500, ..limited("while :; do :; done", limits) };
        let end = house.run(command);
        assert_eq!(end.outcome, Outcome::TimedOut);
        // Its shell ignores nothing: TERM ends it at once. A busy machine gives less than the share, never more.
        let share = end.cpu_us as f64 / end.duration_us as f64;
        assert!(share < 0.40, "{share} with {}", house.base.rung());
    }
}

#[test]
fn what_this_host_cannot_enforce_is_named_and_refused_unless_it_is_not_insisted_on() {
    for house in each() {
        let limits = CommandLimits { memory_high: 64 << 20, tasks: 50, ..Default::default() };
        let end = house.run(limited("true", limits));
        if end.outcome == Outcome::Succeeded {
            continue;
        }
        let error = end.error.clone().unwrap();
        assert_eq!((end.outcome, error.code.as_str(), end.changed), (Outcome::Refused, "limits", false));
        assert!(error.text.contains("memory_high ("), "{}", error.text);
        assert_eq!(error.text.contains("tasks ("), house.base.tree().is_none(), "{}", error.text);
        let end = house.run(limited("true", CommandLimits { best_effort: true, ..limits }));
        assert_eq!((end.outcome, flags(&end)), (Outcome::Succeeded, vec!["limits_not_enforced"]));
    }
}

#[test]
fn folders_for_limits_are_named_by_start_and_go_with_the_command() {
    for house in fenced() {
        let all = CommandLimits { memory_max: 64 << 20, cpu_percent: 90, tasks: 50, ..Default::default() };
        let mut running = house.start(limited("echo $$; sleep 60", all));
        wait_for("the pid", || running.pids().len() == 1);
        let start = running.history().start.unwrap();
        let place = house.base.place(running.uid).unwrap();
        assert_eq!(start.cgroup.as_ref(), Some(&place.group));
        assert!(start.controllers.iter().all(|folder| folder.is_dir()), "{:?}", start.controllers);
        let made = place.controllers.iter().filter(|controller| controller.folder.is_dir());
        assert!(
            made.clone().all(|controller| start.controllers.contains(&controller.folder)),
            "{:?}",
            start.controllers
        );
        let joined = std::fs::read_to_string(format!("/proc/{}/cgroup", running.pids()[0])).unwrap();
        let name = running.uid.to_string();
        assert!(joined.lines().filter(|line| line.contains(&name)).count() > start.controllers.len(), "{joined}");
        running.kill_shim();
        assert!(matches!(house.recover_gone(running.uid), Recovered::Ended(_)));
        assert!(!place.group.exists());
        assert!(start.controllers.iter().all(|folder| !folder.exists()), "{:?}", start.controllers);
    }
}

#[test]
fn nothing_lives_after_a_killed_shim_in_each_way() {
    for house in each() {
        let mut running = house.start(shell(
            "trap '' TERM; setsid sh -c 'echo $$; kill -STOP $$; sleep 60' & (setsid sleep 60 & echo $!); echo $$; sleep 60",
        ));
        wait_for("three pids", || running.pids().len() == 3);
        let pids = running.pids();
        running.kill_shim();
        let Recovered::Ended(end) = house.recover_gone(running.uid) else { panic!("not ended") };
        assert_eq!((end.outcome, flags(&end)), (Outcome::Interrupted, Vec::new()), "{}", house.base.rung());
        let survivors: Vec<_> = pids.into_iter().filter(|pid| alive(*pid)).collect();
        assert!(survivors.is_empty(), "{survivors:?} with {}", house.base.rung());
    }
}

#[test]
fn what_changes_its_numbers_all_the_time_does_not_outlive_a_killed_shim_either() {
    for house in each() {
        let mut running = house.start(shell(&format!("({RUNAWAYS}) & exec sleep 60")));
        running.wait_for_output("up");
        running.kill_shim();
        let Recovered::Ended(end) = house.recover_gone(running.uid) else { panic!("not ended") };
        assert_eq!((end.outcome, flags(&end)), (Outcome::Interrupted, Vec::new()), "{}", house.base.rung());
        assert_eq!(carriers(&format!("PAPRIKA_COMMAND_UID={}", running.uid)), Vec::<i32>::new());
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "what was not run is said")]
fn the_kernel_takes_others_before_the_shim_when_memory_is_short() {
    let try_it = ["-c", "echo -900 > /proc/self/oom_score_adj"];
    let may = std::process::Command::new("/bin/sh").args(try_it).output().unwrap().status.success();
    if !may {
        println!("NOT RUN: what the kernel takes when memory is short: no right to lower an OOM score");
    }
    for house in each() {
        let running = house.start(shell("echo $$; exec sleep 60"));
        wait_for("the pid", || running.pids().len() == 1);
        let score = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert_eq!(score(running.shim_id()).trim(), if may { "-900" } else { "0" });
        assert_eq!(score(running.pids()[0]).trim(), "0");
        running.cancel("", Some(Duration::ZERO));
        running.end();
    }
}

#[test]
fn who_left_the_cgroup_is_found_by_its_mark_after_a_killed_shim() {
    for house in fenced() {
        let away = house.base.tree().unwrap().path.join("away");
        std::fs::create_dir_all(&away).unwrap();
        let mut running = house.start(shell(&format!(
            "setsid sh -c 'echo 0 > {}/cgroup.procs; echo $$; exec sleep 60' & sleep 60",
            away.display()
        )));
        wait_for("the pid", || running.pids().len() == 1);
        let pid = running.pids()[0];
        running.kill_shim();
        let Recovered::Ended(end) = house.recover_gone(running.uid) else { panic!("not ended") };
        assert_eq!(flags(&end), ["escaped"], "{}", house.base.rung());
        assert!(!alive(pid));
        wait_for("the cgroup to be empty", || std::fs::remove_dir(&away).is_ok());
    }
}

#[test]
fn three_nested_cgroups_of_a_command_are_emptied_and_removed_with_it() {
    for house in fenced() {
        let nest = "for i in a a/b a/b/c; do mkdir $i; sh -c \"echo 0 > $i/cgroup.procs; exec sleep 60\" & done; \
             for i in a a/b a/b/c; do until grep -q . $i/cgroup.procs; do :; done; done; echo nested; exec sleep 60";
        // The command finds its own cgroup by the path of the house and its uid, which is in its environment.
        let tree = house.base.tree().unwrap().path.display();
        let running = house.start(shell(&format!("cd {tree}/$PAPRIKA_COMMAND_UID/work && {nest}")));
        running.wait_for_output("nested");
        let group = house.base.of(running.uid).unwrap();
        let deepest = group.join("work/a/b/c");
        assert!(cgroup::populated(&deepest));
        running.cancel("", Some(Duration::ZERO));
        let uid = running.uid;
        assert_eq!(running.end().outcome, Outcome::Cancelled, "{}", house.base.rung());
        assert!(!cgroup::populated(&deepest));
        assert!(matches!(house.recover(uid), Recovered::Ended(_)));
        assert!(!group.exists(), "{}", house.base.rung());
    }
}

#[test]
fn cgroups_that_nobody_knows_any_more_go_at_the_next_start() {
    for house in fenced() {
        let unknown = house.base.of(Uid::random()).unwrap();
        std::fs::create_dir_all(unknown.join("work/a/b")).unwrap();
        let known = house.base.of(house.accept(shell("true"))).unwrap();
        std::fs::create_dir_all(known.join("work")).unwrap();
        sweep_cgroups(&house.state, &house.base);
        assert!(!unknown.exists() && known.exists(), "{}", house.base.rung());
    }
}

#[test]
fn when_the_machine_goes_down_what_runs_is_cancelled_and_what_waits_is_not() {
    for house in each() {
        let polite = house.start(shell("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"));
        let other = house.start(shell("echo up; exec sleep 60"));
        let waits = house.accept(shell("true"));
        for running in [&polite, &other] {
            running.wait_for_output("up");
        }
        let began = Instant::now();
        assert_eq!(hold::end_commands(house.state.path(), agent::limits::END_WITHIN), Vec::<Uid>::new());
        assert!(began.elapsed() < BOUND);
        let ended = |running: Running<'_>| {
            let dir = running.dir.clone();
            (running.end(), String::from_utf8(read_all(&dir, StreamName::Stdout)).unwrap())
        };
        let (end, output) = ended(polite);
        assert_eq!((end.outcome, end.exit_code, output.as_str()), (Outcome::Cancelled, Some(3), "up\nbye\n"));
        assert_eq!((end.cancelled_by.as_str(), end.cancel_reason.as_str()), ("host", "the machine shuts down"));
        assert_eq!(ended(other).0.outcome, Outcome::Cancelled);
        assert_eq!(house.recover(waits), Recovered::Respawn, "it runs after the boot");
    }
}

#[test]
fn who_was_cancelled_before_has_no_more_time_than_the_machine() {
    let house = House::new();
    let running = house.start(shell("trap '' TERM; echo up; while :; do sleep 0.05; done"));
    running.wait_for_output("up");
    running.cancel("maintenance", Some(Duration::from_secs(3600)));
    // The bound of the second request is a part of the whole time.
    assert_eq!(hold::end_commands(house.state.path(), Duration::from_secs(2)), Vec::<Uid>::new());
    let end = running.end();
    assert_eq!((end.outcome, end.signal, end.cancel_reason.as_str()), (Outcome::Cancelled, Some(9), "maintenance"));
}
