//! Commands that work against their own shim: what they take, where they hide.

use std::time::Duration;

use common::model::Outcome;

use super::kit::{House, alive, argv, is_root, not_run, shell, wait_for};

#[test]
fn the_shims_side_of_a_pipe_never_waits_and_the_commands_side_does() {
    // A command can open its own pipe for reading and take a byte that was announced to the shim: a shim that then waited
    // for the next one would look at no clock and at no request.
    for house in House::both() {
        let running = house.start(shell("echo $$; exec sleep 600"));
        wait_for("the command to say its number", || !running.pids().is_empty());
        let main = running.pids()[0];
        let mut seen = 0;
        for stream in [1, 2] {
            let pipe = std::fs::read_link(format!("/proc/{main}/fd/{stream}")).unwrap();
            assert!(pipe.to_string_lossy().starts_with("pipe:"), "{pipe:?}");
            assert!(waits(main, stream), "a program may count on a write that waits for room");
            for entry in std::fs::read_dir(format!("/proc/{}/fd", running.shim_id())).unwrap().flatten() {
                if std::fs::read_link(entry.path()).is_ok_and(|other| other == pipe) {
                    let number = entry.file_name().to_string_lossy().parse().unwrap();
                    assert!(!waits(running.shim_id(), number), "stream {stream}");
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 2, "the shim holds one side of each");
        running.cancel("enough", Some(Duration::ZERO));
        assert_eq!(running.end().outcome, Outcome::Cancelled);
    }
}

/// Whether a file of a process waits where there is nothing to read or no room to write.
fn waits(pid: i32, number: i32) -> bool {
    const NONBLOCK: u32 = 0o4000;
    let text = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    u32::from_str_radix(flags, 8).unwrap() & NONBLOCK == 0
}

#[test]
fn a_process_that_hides_beside_the_leaf_of_its_command_is_killed_and_said_to_have_escaped() {
    const TEST: &str = "a_process_that_hides_beside_the_leaf_of_its_command";
    if !is_root(TEST) {
        return;
    }
    let house = House::new();
    let Some(group) = house.base.of(house.accept(argv(&["true"]))) else {
        return not_run(TEST, "there are no cgroups");
    };
    let Some(base) = group.parent().map(std::path::Path::to_owned) else { return };
    if !base.join("cgroup.controllers").exists() {
        return not_run(TEST, "needs a tree of version 2");
    }
    // The shim's own leaf, and a folder elsewhere whose name holds the uid.
    let hideouts = [
        "$base/$PAPRIKA_COMMAND_UID/shim".to_owned(),
        "$base/hide-$PAPRIKA_COMMAND_UID".to_owned(),
        "$base/hide-$PAPRIKA_COMMAND_UID/$PAPRIKA_COMMAND_UID".to_owned(),
    ];
    for hideout in hideouts {
        let line = format!(
            "base={}; d={hideout}; mkdir -p $d; echo $$ > $d/cgroup.procs && echo $$; exec sleep 600",
            base.display()
        );
        let running = house.start(shell(&line));
        wait_for("the process to hide", || !running.pids().is_empty());
        let pid = running.pids()[0];
        let uid = running.uid;
        running.cancel("enough", Some(Duration::from_millis(200)));
        let end = running.end();
        assert_eq!((end.outcome, alive(pid)), (Outcome::Cancelled, false), "{hideout}");
        assert!(end.flags.iter().any(|flag| flag == "escaped"), "{hideout}: {:?}", end.flags);
        for folder in [format!("hide-{uid}/{uid}"), format!("hide-{uid}")] {
            let folder = base.join(folder);
            wait_for("the hideout to be empty", || !folder.exists() || std::fs::remove_dir(&folder).is_ok());
        }
    }
}
