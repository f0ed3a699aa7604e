//! `paprika run`: exit codes, exact bytes, live output, Ctrl-C, several agents.

use std::fs;
use std::process::Command;

use api::commands::CancelRequest;
use common::model::Phase;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use testkit::ground::{is_root, not_run};

use crate::house::{House, PAPRIKA, Running, text, wait_for};

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
fn every_option_reaches_the_process() {
    let house = House::with_agents(1);
    let said = |args: &[&str]| {
        let out = house.paprika(&[&["run", "dev-1"][..], args].concat());
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    assert_eq!(said(&["--umask", "027", "--shell", "umask"]), "0027\n");
    assert_eq!(said(&["--oom-score", "500", "--", "cat", "/proc/self/oom_score_adj"]), "500\n");
    let nice = |args: &[&str]| -> i32 { said(&[args, &["--", "nice"]].concat()).trim().parse().unwrap() };
    assert_eq!(nice(&["--nice", "3"]), (nice(&[]) + 3).min(19));
    if is_root() {
        assert_eq!(said(&["--user", "nobody", "--shell", "id -un"]), "nobody\n");
        let out = house.paprika(&["run", "dev-1", "--user", "no-such-user", "--", "true"]);
        assert_eq!(out.status.code(), Some(125));
        assert!(text(&out.stderr).contains("no-such-user"), "{}", text(&out.stderr));
    } else {
        not_run(env!("CARGO_TARGET_TMPDIR"), "run::user", "needs root").unwrap();
    }
    let command = house.json(&[
        "run",
        "dev-1",
        "-o",
        "json",
        "--stop-signal",
        "2",
        "--stop-only-main",
        "--grace",
        "2s",
        "--",
        "true",
    ]);
    assert_eq!(
        (&command["stop_signal"], &command["stop_only_main"], &command["grace"]),
        (&"INT".into(), &true.into(), &"2s".into()),
        "{command}"
    );
}

#[test]
fn a_script_runs_with_its_interpreter_arguments_and_input() {
    let house = House::with_agents(2);
    let file = house.folder.join("script");
    fs::write(&file, "#!/bin/sh -e\nprintf '%s,' \"$0\" \"$@\" >&2\nfalse\necho not reached\n").unwrap();
    let name = file.to_string_lossy().into_owned();
    let out = house.paprika(&["run", "dev-1", "--script", &name, "--", "a b", "--timeout"]);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(1), String::new()), "{}", text(&out.stderr));
    assert!(text(&out.stderr).ends_with(",a b,--timeout,"), "{}", text(&out.stderr));
    let mut line = house.command(["run", "dev-1", "--script", "-", "--interpreter", "/bin/sh -u"]);
    let out = Running::start_with_input(&mut line, b"echo $missing").finish();
    assert_ne!(out.status.code(), Some(0), "-u stands: {}", text(&out.stdout));
    fs::write(&file, "cat").unwrap();
    let mut line = house.command(["run", "dev-1,dev-2", "--script", &name, "--stdin", "-"]);
    let out = Running::start_with_input(&mut line, b"to both\n").finish();
    assert_eq!(
        text(&out.stdout).lines().filter(|line| line.ends_with("| to both")).count(),
        2,
        "{}",
        text(&out.stderr)
    );
    let list = text(&house.paprika(&["commands", "--agent", "dev-2"]).stdout);
    assert!(list.contains("/bin/sh <script, 1 line>"), "{list}");
}

#[test]
fn a_guard_that_skips_is_success_and_says_why() {
    let house = House::with_agents(1);
    let mark = house.folder.join("mark");
    let path = mark.to_string_lossy().into_owned();
    let line = format!("echo made; touch {path}");
    let run = |guard: &[&str]| {
        let out = house.paprika(&[&["run", "dev-1"][..], guard, &["--shell", &line]].concat());
        assert_eq!(out.status.code(), Some(0), "{guard:?}: {}", text(&out.stderr));
        (text(&out.stdout), text(&out.stderr))
    };
    assert_eq!(run(&["--removes", &path]).0, "");
    assert_eq!(run(&["--creates", &path]), ("made\n".to_owned(), String::new()));
    let (stdout, stderr) = run(&["--creates", &path]);
    assert!(stdout.is_empty() && stderr.contains("skipped") && stderr.contains(&path), "{stdout}{stderr}");
    let test = format!("test -e {path}");
    assert_eq!(run(&["--unless", &test]).0, "");
    assert_eq!(run(&["--only-if", &test]).0, "made\n");
    assert_eq!(run(&["--only-if", "echo noise; exit 1"]).0, "", "what a guard prints is thrown away");
    let command = house.json(&["run", "dev-1", "-o", "json", "--creates", "/", "--", "true"]);
    assert_eq!(
        (&command["phase"], &command["exit_code"], &command["changed"], &command["value"]["skipped"]),
        (&"succeeded".into(), &serde_json::Value::Null, &false.into(), &"creates".into()),
        "{command}"
    );
    let card = text(&house.paprika(&["show", &command["id"].to_string()]).stdout);
    let has = |words: &str| card.lines().any(|line| line.split_whitespace().eq(words.split(' ')));
    assert!(has("guard creates /") && has("status skipped, nothing was run: / exists (creates)"), "{card}");
    let op = house.paprika(&["op", "dev-1", "command.run", "shell=echo hi", "--creates", "/"]);
    assert_eq!((op.status.code(), text(&op.stdout)), (Some(0), String::new()), "{}", text(&op.stderr));
    assert!(text(&op.stderr).contains("skipped"), "{}", text(&op.stderr));
}

#[test]
fn a_paused_command_stands_still_until_it_is_resumed() {
    let house = House::with_agents(1);
    let gate = house.folder.join("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let line = format!("echo ready; read word < {}; echo $word", gate.display());
    let mut run = Running::start(&mut house.command(["run", "dev-1", "--shell", &line]));
    assert_eq!(run.line(), "ready");
    let id = house.json(&["commands", "-o", "json"])[0]["id"].to_string();
    for _ in 0..2 {
        let out = house.paprika(&["pause", &id]);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        assert!(text(&out.stdout).contains("paused"), "{}", text(&out.stdout));
        let is_paused = || (house.json(&["show", &id, "-o", "json"])["phase"] == "paused").then_some(());
        wait_for("it stands still", is_paused);
    }
    run.wait_for_stderr(&format!("goes on after `paprika resume {id}`"));
    let card = text(&house.paprika(&["show", &id]).stdout);
    assert!(card.contains("pause") && card.contains("paprika resume"), "{card}");
    assert_eq!(house.paprika(&["resume", &id]).status.code(), Some(0));
    let is_running = || (house.json(&["show", &id, "-o", "json"])["phase"] == "running").then_some(());
    wait_for("it goes on", is_running);
    fs::write(&gate, "on\n").unwrap();
    assert_eq!(run.line(), "on");
    assert_eq!(run.finish().status.code(), Some(0));
    assert_eq!(house.paprika(&["pause", &id]).status.code(), Some(1), "it is over");
    assert_eq!(house.paprika(&["pause", "999999", &id]).status.code(), Some(4), "the first failure gives the code");
}

#[test]
fn what_holds_a_command_up_is_said_once() {
    let house = House::with_agents(2);
    assert_eq!(house.paprika(&["agent", "drain", "dev-1"]).status.code(), Some(0));
    let mut run = Running::start(&mut house.command(["run", "dev-1,dev-2", "--shell", "echo done"]));
    run.wait_for_stderr("drained; it starts after `paprika agent undrain dev-1`");
    assert_eq!(run.line(), "dev-2 | done");
    assert_eq!(house.paprika(&["agent", "undrain", "dev-1"]).status.code(), Some(0));
    assert_eq!(run.line(), "dev-1 | done");
    let out = run.finish();
    assert_eq!(out.status.code(), Some(0));
    assert!(!text(&out.stderr).contains("drained"), "said twice: {}", text(&out.stderr));
    // A name that has a certificate and no host behind it.
    let folder = house.folder.join("cert").to_string_lossy().into_owned();
    assert_eq!(house.paprika(&["agent", "cert", "ghost", "--out", &folder]).status.code(), Some(0));
    let mut run = Running::start(&mut house.command(["run", "ghost", "--expires", "1h", "--", "true"]));
    run.wait_for_stderr("starts when its agent ghost is connected again");
    run.signal(Signal::SIGINT);
    run.wait_for_stderr("Ctrl-C again");
    assert_eq!(run.finish().status.code(), Some(125));
}

#[tokio::test]
async fn a_command_without_a_free_place_tells_its_place() -> anyhow::Result<()> {
    let mut house = testkit::House::start(testkit::HouseOptions::new(PAPRIKA)).await?;
    house.make_agent("web1").await?;
    let config = house.folder().join("web1/agent.yml");
    fs::write(&config, fs::read_to_string(&config)? + "max_running: 1\n")?;
    house.start_agent("web1", &[])?;
    house.connected("web1").await?;
    let first = house.shell("web1", "sleep 600").await?.id;
    let is_running = |command: &api::commands::Command| command.phase == Phase::Running;
    house.command_when(first, "the first to run", is_running).await?;
    let second = house.shell("web1", "sleep 600").await?.id;
    let is_waiting = |command: &api::commands::Command| command.phase == Phase::Waiting;
    house.command_when(second, "the second to wait", is_waiting).await?;

    let mut line = Command::new(PAPRIKA);
    line.args(["run", "web1", "--shell", "echo at last"])
        .env("PAPRIKA_API", format!("https://{}", house.api()))
        .env("PAPRIKA_TOKEN", house.token()?)
        .env("PAPRIKA_CA", house.manager_dir().join("ca/ca.pem"));
    let mut run = Running::start(&mut line);
    let run = tokio::task::spawn_blocking(move || {
        run.wait_for_stderr("waits for a free place");
        run
    })
    .await?;
    let third = second + 1;
    let shown = house.command_when(third, "its place to be known", |command| {
        command.progress.as_ref().is_some_and(|place| (place.current, place.total) == (2, 2))
    });
    anyhow::ensure!(shown.await?.waiting.as_deref() == Some("parallel_limit"));
    for id in [second, first] {
        house.client().cancel(id, &CancelRequest { grace: "0s".parse().ok(), ..CancelRequest::default() }).await?;
    }
    let out = tokio::task::spawn_blocking(move || run.finish()).await?;
    anyhow::ensure!(text(&out.stdout) == "at last\n" && out.status.success(), "{}", text(&out.stderr));
    anyhow::ensure!(!text(&out.stderr).contains("waits"), "said twice: {}", text(&out.stderr));
    let waited = house.finished(second).await?;
    anyhow::ensure!(waited.phase == Phase::Cancelled && waited.started_at.is_none(), "it never ran: {waited:?}");
    house.close().await
}

#[test]
fn a_limit_that_cannot_be_is_refused_with_its_flag_and_one_that_can_is_shown() {
    let house = House::with_agents(1);
    let out = house.paprika(&["run", "dev-1", "--limit", "memroy=1G", "--", "true"]);
    let said = text(&out.stderr);
    assert!(out.status.code() == Some(2) && said.contains("--limit") && said.contains("\"memory\""), "{said}");
    let args =
        ["run", "dev-1", "--limit", "memory=1G", "--limit", "tasks=100", "--best-effort", "-o", "json", "--", "true"];
    let command = house.json(&args);
    assert_eq!(command["limits"], serde_json::json!({"memory": "1G", "tasks": 100, "best_effort": true}), "{command}");
    let card = text(&house.paprika(&["show", &command["id"].to_string()]).stdout);
    assert!(card.contains("memory 1G, tasks 100, best effort"), "{card}");
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
