//! `paprika dev`: ready with one command, three lines that work as pasted, and nothing left behind.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::house::{House, PAPRIKA, Running, text, wait_for};

fn paste(line: &str) -> std::process::Output {
    Running::start(Command::new("sh").args(["-c", line])).finish()
}

#[test]
fn the_three_lines_work_as_pasted() {
    let house = House::with_agents(1);
    let [start, cancel, run] = house.lines.as_slice() else { panic!("{:?}", house.lines) };

    let out = paste(start);
    let command: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&command["agent"], &command["operation"]), (&"dev-1".into(), &"command.run".into()), "{command}");
    let id = command["id"].to_string();
    let logs = house.paprika(&["logs", "-f", &id]);
    assert!(text(&logs.stdout).starts_with("Linux"), "{}", text(&logs.stdout));

    let out = paste(cancel);
    let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let id = answer["command"]["id"].to_string();
    let ended = wait_for("the cancelled command ends", || {
        let command = house.json(&["show", &id, "-o", "json"]);
        (command["phase"] == "cancelled").then_some(command)
    });
    assert_eq!(ended["cancel"]["pending"], false, "{ended}");

    let out = paste(run);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).starts_with("Linux"), "{}", text(&out.stdout));
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn an_ordinary_user_needs_nothing_more_than_root_does() {
    /// Debian's nobody and nogroup; any ids without rights would do.
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        // All other tests of this file already run as an ordinary user.
        return;
    }
    // The binary may lie where nobody may look, so that a copy is used.
    let own = tempfile::Builder::new().prefix("paprika-").tempdir().unwrap();
    fs::set_permissions(own.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (binary, home) = (own.path().join("paprika"), own.path().join("home"));
    fs::copy(PAPRIKA, &binary).unwrap();
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new(&binary);
    command.uid(NOBODY).gid(NOBODY).current_dir(&home);
    let house = House::begin(&mut command, &home.join("d"), 2);
    let [start, cancel, run] = house.lines.as_slice() else { panic!("{:?}", house.lines) };
    for line in [start, cancel, run] {
        let out = Running::start(Command::new("sh").args(["-c", line]).uid(NOBODY).gid(NOBODY)).finish();
        assert!(out.status.success(), "{line}: {}", text(&out.stderr));
        assert!(!out.stdout.is_empty(), "{line}");
    }
    let out = house.paprika(&["run", "dev-2", "--", "id", "-u"]);
    assert_eq!(text(&out.stdout).trim(), NOBODY.to_string(), "{}", text(&out.stderr));
    let ended = wait_for("the cancelled command ends", || {
        let commands = house.json(&["commands", "-o", "json"]);
        commands.as_array()?.iter().find(|command| command["phase"] == "cancelled").cloned()
    });
    assert_eq!(ended["isolation"], "best_effort", "{ended}");
}

#[test]
fn the_file_for_source_is_private_and_enough_for_curl_and_us() {
    let house = House::with_agents(1);
    let file = house.folder.join("env");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let script = format!(
        ". {}; {PAPRIKA} agents && curl -sS --cacert \"$PAPRIKA_CA\" -H \"authorization: Bearer $PAPRIKA_TOKEN\" $PAPRIKA_API/status",
        file.display()
    );
    let out = paste(&script);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    assert!(said.contains("dev-1  connected") && said.contains("\"connected\":1"), "{said}");
}

#[test]
fn commands_and_agents_are_kept_between_runs() {
    let own = tempfile::Builder::new().prefix("paprika-").tempdir().unwrap();
    let folder = own.path().join("d");
    let mut house = House::open(&folder, 1);
    assert_eq!(house.paprika(&["run", "dev-1", "--", "echo", "kept"]).status.code(), Some(0));
    let out = house.stop();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));

    let house = House::open(&folder, 2);
    let commands = house.json(&["commands", "-o", "json"]);
    assert_eq!(commands.as_array().unwrap().len(), 1, "{commands}");
    assert_eq!(text(&house.paprika(&["logs", &commands[0]["id"].to_string()]).stdout), "kept\n");
    let agents = house.json(&["agents", "-o", "json"]);
    assert_eq!(agents[0]["generation"], 1, "the same agent as before: {agents}");
    for agent in ["dev-1", "dev-2"] {
        assert_eq!(house.paprika(&["run", agent, "--", "true"]).status.code(), Some(0), "{agent}");
    }
}

#[test]
fn an_agent_that_dies_is_started_again_and_its_command_lives_on() {
    let house = House::with_agents(1);
    let gate = house.folder.join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let line = format!("echo before; read word < {}; echo after $word", gate.display());
    let mut run = Running::start(&mut house.command(["run", "dev-1", "--shell", &line]));
    assert_eq!(run.line(), "before");

    let agent = agent_of(house.pid()).unwrap();
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    wait_for("another agent runs", || agent_of(house.pid()).filter(|pid| *pid != agent));
    fs::write(&gate, "all\n").unwrap();
    let out = run.finish();
    assert_eq!((text(&out.stdout).as_str(), out.status.code()), ("after all\n", Some(0)), "{}", text(&out.stderr));
}

/// The agent that is a child of this `paprika dev`.
fn agent_of(dev: u32) -> Option<i32> {
    let tasks = fs::read_dir(format!("/proc/{dev}/task")).ok()?.flatten();
    let children: Vec<i32> = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|children| children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    children.into_iter().find(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).contains("\0agent\0--config\0"))
    })
}

#[test]
fn a_stop_takes_the_agents_along() {
    let mut house = House::with_agents(2);
    let agent = agent_of(house.pid()).unwrap();
    let out = house.stop();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(!fs::exists(format!("/proc/{agent}")).unwrap(), "the agent outlived its parent");
}

#[test]
fn a_killed_parent_takes_the_agents_along() {
    let house = House::with_agents(1);
    let agent = agent_of(house.pid()).unwrap();
    kill(Pid::from_raw(i32::try_from(house.pid()).unwrap()), Signal::SIGKILL).unwrap();
    wait_for("the agent ends", || (!is_alive(agent)).then_some(()));
}

/// An orphan may stay as a zombie where nobody adopts; that counts as ended.
fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

#[test]
fn a_taken_port_is_told_with_its_holder_and_the_way_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let own = tempfile::tempdir().unwrap();
    let mut dev = Command::new(PAPRIKA);
    dev.args(["dev", "--api", &taken, "--link", "127.0.0.1:0", "--dir"]).arg(own.path());
    let out = Running::start(&mut dev).finish();
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    for part in [taken.as_str(), &format!("({})", std::process::id()), "--api 127.0.0.1:0"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_second_one_in_the_same_folder_is_refused() {
    let house = House::with_agents(0);
    let mut dev = Command::new(PAPRIKA);
    dev.args(["dev", "--api", "127.0.0.1:0", "--link", "127.0.0.1:0", "--dir"]).arg(&house.folder);
    let out = Running::start(&mut dev).finish();
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    assert_eq!(house.paprika(&["status"]).status.code(), Some(0), "the first is unharmed");
}
