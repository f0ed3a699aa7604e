//! A process stands in the command's cgroup with its first instruction, and so does whatever it forks as its next one.
//!
//! The processes say it themselves: the first thing they do is to read and write down where they are. Who was born
//! outside and moved later would have been outside for its first instructions.

use std::sync::atomic::{AtomicUsize, Ordering};

use common::id::Uid;
use common::model::{Outcome, StreamName};
use common::wire::{Command, CommandLimits};
use serde_json::json;

use super::kit::{House, run_args, text};
use super::rungs::{each, fenced};

/// Commands on each rung, and the processes of each: a thousand in all.
const COMMANDS: usize = 40;
const PROCESSES: usize = 25;
/// Commands at once: more births at a time than this machine has cores.
const LANES: usize = 4;
/// As its first act a process writes its places in one piece; then it forks. Children do the same, two generations of
/// them in sessions of their own. The first waits for all by a pipe that they hold open.
const FORKERS: &str = r#"
use POSIX ();
sub place { open(my $f, "<", "/proc/self/cgroup") or die; my $all = join("|", map { chomp; $_ } <$f>);
            syswrite(STDOUT, "$all\n") or die; }
place(); pipe(R, W) or die;
for (1..8) { my $pid = fork; die unless defined $pid; next if $pid;
    place(); $pid = fork; die unless defined $pid; exit 0 if $pid;
    place(); POSIX::setsid(); $pid = fork; die unless defined $pid; exit 0 if $pid;
    place(); exit 0 }
close W; sysread(R, my $rest, 1); exit 0
"#;
/// Leaves somebody behind, who is killed before the main process is made: from then on processes go in on foot.
const UNTIDY: &str = "setsid sleep 60 >/dev/null 2>&1 & true";

/// In turn: as it is, within a limit of tasks, behind a guard that left something.
fn forker(number: usize) -> Command {
    let run = json!(["perl", "-e", FORKERS]);
    match number % 3 {
        0 => run_args(json!({ "run": run })),
        1 => {
            // A limit that is not in reach: only the folder that it makes counts.
            let limits = CommandLimits { tasks: 200, best_effort: true, ..CommandLimits::default() };
            Command { limits: Some(limits), ..run_args(json!({ "run": run })) }
        }
        _ => run_args(json!({ "run": run, "only_if": UNTIDY })),
    }
}

/// Runs them all; answers the places that their processes said, by command.
fn places(house: &House, commands: usize) -> Vec<(Uid, usize, Vec<String>)> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let lane = || {
            let mut said = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= commands {
                    return said;
                }
                let uid = house.accept(forker(number));
                let end = house.launch(uid).end();
                assert_eq!((end.outcome, end.exit_code), (Outcome::Succeeded, Some(0)), "{end:?}");
                let lines = text(house, uid, StreamName::Stdout).lines().map(str::to_owned).collect();
                said.push((uid, number, lines));
            }
        };
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    })
}

/// The path in one tree, as a process saw it.
fn path<'a>(places: &'a str, controller: &str) -> Option<&'a str> {
    places.split('|').find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|one| one == controller).then_some(path)
    })
}

#[test]
fn a_thousand_forkers_are_inside_with_their_first_instruction_on_each_rung() {
    for house in fenced("birth") {
        let rung = house.base.rung();
        // The tree of version 2 has no name.
        let tree = if rung == "v1" { "freezer" } else { "" };
        let counted = house.base.tree().is_some_and(|tree| tree.controllers.iter().any(|one| one.name == "pids"));
        let mut seen = 0;
        for (uid, number, lines) in places(&house, COMMANDS) {
            assert_eq!(lines.len(), PROCESSES, "not each of command {number} said where it was, {rung}");
            for line in &lines {
                let inside = path(line, tree).is_some_and(|path| path.ends_with(&format!("/{uid}/work")));
                assert!(inside, "one of command {number} of {uid} began outside, {rung}: {line}");
                if number % 3 == 1 && counted {
                    let limited = path(line, "pids").is_some_and(|path| path.contains(&uid.to_string()));
                    assert!(limited, "one of command {number} of {uid} began outside of its limit, {rung}: {line}");
                }
            }
            seen += lines.len();
        }
        assert_eq!(seen, COMMANDS * PROCESSES, "{rung}");
    }
}

/// What the test above looks for is there to be seen: where nothing is made for a command, nobody is in it.
#[test]
fn without_cgroups_nobody_says_that_he_is_in_one() {
    for house in each("birth").into_iter().filter(|house| house.base.tree().is_none()) {
        for (uid, _, lines) in places(&house, 3) {
            assert_eq!(lines.len(), PROCESSES);
            assert!(lines.iter().all(|line| !line.contains(&uid.to_string())), "{lines:?}");
        }
    }
}
