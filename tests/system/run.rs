//! `paprika run`: exit codes, exact bytes, live output, Ctrl-C, several agents.

use std::fs;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::house::{House, Running, text, wait_for};

#[test]
fn the_exit_code_is_the_programs_own_or_says_what_happened() {
    let house = House::with_agents(1);
    for (args, code) in [
        (&["--", "true"][..], 0),
        (&["--", "sh", "-c", "exit 7"], 7),
        (&["--shell", "exit 255"], 255),
        (&["--shell", "kill -9 $$"], 137),
        (&["--shell", "kill -TERM $$"], 143),
        (&["--timeout", "200ms", "--", "sleep", "600"], 124),
    ] {
        let line = [&["run", "dev-1"][..], args].concat();
        let out = house.paprika(&line);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
    }
    let out = house.paprika(&["run", "dev-1", "--", "/no/such/program"]);
    assert_ne!(out.status.code(), Some(0));
    let out = house.paprika(&["run", "nobody", "--", "true"]);
    assert_eq!(out.status.code(), Some(125), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("nobody"), "{}", text(&out.stderr));
    assert_eq!(house.paprika(&["run", "dev-1"]).status.code(), Some(2), "nothing to run");
}

#[test]
fn bytes_arrive_exactly_each_on_its_own_stream() {
    let house = House::with_agents(1);
    let folder = house.folder.join("bytes");
    fs::create_dir(&folder).unwrap();
    let (one, two) = (folder.join("one"), folder.join("two"));
    // Every byte value, no newline at the end, and more than any buffer holds.
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&one, &bytes).unwrap();
    fs::write(&two, bytes.iter().rev().copied().collect::<Vec<_>>()).unwrap();
    let line = format!("cat {} & cat {} >&2; wait", one.display(), two.display());
    let out = house.paprika(&["run", "dev-1", "--shell", &line]);
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stdout == bytes, "stdout differs: {} bytes", out.stdout.len());
    assert!(out.stderr.iter().rev().eq(bytes.iter()), "stderr differs: {} bytes", out.stderr.len());
}

#[test]
fn output_is_seen_while_the_command_runs() {
    let house = House::with_agents(1);
    let gate = house.folder.join("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let line = format!("echo first; read word < {}; echo $word", gate.display());
    let mut run = Running::start(&mut house.command(["run", "dev-1", "--shell", &line]));
    // The command cannot end before the gate is opened, and it is opened only after its first line was seen.
    assert_eq!(run.line(), "first");
    fs::write(&gate, "second\n").unwrap();
    assert_eq!(run.line(), "second");
    assert_eq!(run.finish().status.code(), Some(0));
}

#[test]
fn options_reach_the_command() {
    let house = House::with_agents(1);
    let line = [
        "run",
        "dev-1",
        "--env",
        "PEPPER=hot and red",
        "--cwd",
        "/tmp",
        "--stdin",
        "-",
        "--shell",
        "echo \"$PEPPER\"; pwd; cat",
    ];
    let out = Running::start_with_input(&mut house.command(line), b"from\xffus").finish();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(out.stdout, b"hot and red\n/tmp\nfrom\xffus");
}

#[test]
fn several_agents_speak_in_whole_lines_behind_their_names() {
    let house = House::with_agents(3);
    let out = house.paprika(&["run", "dev-1,dev-2,dev-3", "--shell", "echo one; echo two; printf rest"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    assert_eq!(said.lines().count(), 9, "{said}");
    for agent in ["dev-1", "dev-2", "dev-3"] {
        let lines: Vec<_> = said.lines().filter_map(|line| line.strip_prefix(&format!("{agent} | "))).collect();
        assert_eq!(lines, ["one", "two", "rest"]);
    }
    let mixed = "test \"$(cat /proc/sys/kernel/ostype)\" = Other";
    assert_eq!(house.paprika(&["run", "dev-1,dev-2", "--shell", mixed]).status.code(), Some(1));
    let jobs = house.json(&["run", "dev-1,dev-2", "-o", "json", "--", "true"]);
    assert_eq!(jobs.as_array().unwrap().len(), 2);
    assert_eq!(jobs[0]["job"], jobs[1]["job"]);
}

#[test]
fn detached_commands_are_followed_later_from_the_first_byte() {
    let house = House::with_agents(1);
    let gate = house.folder.join("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let line = format!("echo out; echo err >&2; read word < {}; echo $word", gate.display());
    let out = house.paprika(&["run", "dev-1", "--detach", "--shell", &line]);
    let id = text(&out.stdout).trim().to_owned();
    let mut logs = Running::start(&mut house.command(["logs", "-f", &id]));
    assert_eq!(logs.line(), "out");
    fs::write(&gate, "later\n").unwrap();
    let followed = logs.finish();
    assert_eq!(text(&followed.stdout), "later\n");
    assert!(text(&followed.stderr).starts_with("err\n"), "{}", text(&followed.stderr));
    let one = house.paprika(&["logs", &id, "--stream", "stdout", "--from", "4"]);
    assert_eq!(text(&one.stdout), "later\n");
    assert_eq!(text(&house.paprika(&["logs", &id, "--stream", "stderr"]).stdout), "err\n");
}

#[test]
fn one_ctrl_c_leaves_the_command_alone() {
    let house = House::with_agents(1);
    let gate = house.folder.join("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let line = format!("echo ready; read word < {}", gate.display());
    let mut run = Running::start(&mut house.command(["run", "dev-1", "--shell", &line]));
    assert_eq!(run.line(), "ready");
    run.signal(Signal::SIGINT);
    run.wait_for_stderr("Ctrl-C again");
    let out = run.finish();
    assert_eq!(out.status.code(), Some(125), "{}", text(&out.stderr));
    let running = house.json(&["commands", "--phase", "running", "-o", "json"]);
    assert_eq!(running.as_array().unwrap().len(), 1, "{running}");
    fs::write(&gate, "done\n").unwrap();
}

#[test]
fn two_ctrl_c_cancel() {
    let house = House::with_agents(1);
    let mut run = Running::start(&mut house.command(["run", "dev-1", "--shell", "echo ready; sleep 600"]));
    assert_eq!(run.line(), "ready");
    run.signal(Signal::SIGINT);
    run.wait_for_stderr("Ctrl-C again");
    run.signal(Signal::SIGINT);
    let out = run.finish();
    assert_eq!(out.status.code(), Some(130), "{}", text(&out.stderr));
    let command = house.json(&["commands", "-o", "json"])[0].clone();
    assert_eq!((&command["phase"], &command["cancel"]["reason"]), (&"cancelled".into(), &"Ctrl-C".into()), "{command}");
}

#[test]
fn cancel_ends_what_runs_and_says_so_when_nothing_does() {
    let house = House::with_agents(1);
    let out = house.paprika(&["run", "dev-1", "-d", "--", "sleep", "600"]);
    let id = text(&out.stdout).trim().to_owned();
    let out = house.paprika(&["cancel", &id, "--reason", "enough", "--grace", "1s"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let command = wait_for("it is cancelled", || {
        let command = house.json(&["show", &id, "-o", "json"]);
        (command["phase"] == "cancelled").then_some(command)
    });
    assert_eq!(command["cancel"]["reason"], "enough");
    let again = house.paprika(&["cancel", &id]);
    assert_eq!(again.status.code(), Some(0));
    assert!(text(&again.stdout).contains("was over before"), "{}", text(&again.stdout));
    assert_eq!(house.paprika(&["cancel", "999999"]).status.code(), Some(4));
}
