//! The other verbs: what they print, for people and for programs, and their exit codes.

use std::fs;
use std::process::Command;

use crate::house::{House, PAPRIKA, Running, text, wait_for};

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let house = House::with_agents(1);
    let code = |args: &[&str]| house.paprika(args).status.code();
    assert_eq!(code(&["status"]), Some(0));
    assert_eq!(code(&["show", "999999"]), Some(4));
    assert_eq!(code(&["agent", "show", "nobody"]), Some(4));
    assert_eq!(code(&["logs", "999999"]), Some(4));
    assert_eq!(code(&["fly"]), Some(2));
    assert_eq!(code(&["op", "dev-1", "no.such.operation"]), Some(2));
    assert_eq!(code(&["op", "dev-1", "agent.ping"]), Some(0));
    assert_eq!(code(&["agent", "remove", "dev-1"]), Some(2), "nobody can be asked");
    let out = Running::start(house.command(["status"]).env("PAPRIKA_API", "unix:/nonexistent/api.sock")).finish();
    assert_eq!(out.status.code(), Some(5));
    assert!(text(&out.stderr).contains("hint:"), "{}", text(&out.stderr));
}

#[test]
fn what_does_not_exist_is_not_an_empty_list() {
    let house = House::with_agents(1);
    let code = |args: &[&str]| house.paprika(args).status.code();
    assert_eq!(code(&["commands", "--agent", "nosuch"]), Some(4));
    assert_eq!(code(&["commands", "--job", "999999"]), Some(4));
    assert_eq!(code(&["commands", "--agent", "dev-1"]), Some(0), "nothing yet is an answer");
    let job = house.json(&["run", "dev-1", "--detach", "-o", "json", "--", "true"]);
    assert_eq!(house.json(&["commands", "--agent", "dev-1", "-o", "json"])[0]["id"], job["id"]);
    assert_eq!(code(&["commands", "--agent", "dev-1", "--phase", "refused"]), Some(0));
    let out = house.paprika(&["commands", "--agent", "dev1"]);
    assert!(text(&out.stderr).contains("dev1"), "{}", text(&out.stderr));
}

#[test]
fn failures_are_documents_where_results_are() {
    let house = House::with_agents(1);
    let out = house.paprika(&["show", "999999", "-o", "json"]);
    let problem: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&"not_found".into(), &404.into()), "{problem}");
    assert!(out.stdout.is_empty());
    let out = house.paprika(&["cancel", "999998", "999999", "-o", "json"]);
    let problems = text(&out.stderr);
    assert_eq!(problems.lines().count(), 2, "one for each: {problems}");
    assert!(problems.lines().all(|line| line.starts_with('{')), "{problems}");
    let out =
        Running::start(house.command(["status", "-o", "yaml"]).env("PAPRIKA_API", "unix:/nonexistent/s")).finish();
    assert_eq!(out.status.code(), Some(5));
    let problem = text(&out.stderr);
    assert!(problem.contains("code: unreachable") && problem.contains("hint: "), "{problem}");
    let out = house.paprika(&["run", "dev-1", "-o", "json", "--env", "K=1", "--env", "K=2", "--", "true"]);
    let problem: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!((&problem["code"], out.status.code()), (&"usage".into(), Some(125)), "{problem}");
    let out = house.paprika(&["show", "x", "-o", "json"]);
    let problem: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!((&problem["code"], out.status.code()), (&"usage".into(), Some(2)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("an id is a number"), "{problem}");
}

#[test]
fn the_help_of_agent_lists_the_options_of_the_daemon() {
    let help = |program: &std::path::Path, args: &[&str]| {
        text(&Running::start(Command::new(program).args(args)).finish().stdout)
    };
    let listed = help(PAPRIKA.as_ref(), &["agent", "--help"]);
    let daemon = std::path::Path::new(PAPRIKA).with_file_name("paprika-agent");
    let known = help(&daemon, &["--help"]);
    let options = |text: &str| -> std::collections::BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        words.filter(|word| word.len() > 2 && word.starts_with("--")).map(str::to_owned).collect()
    };
    let missing: Vec<String> = options(&known).difference(&options(&listed)).cloned().collect();
    let own = ["--help".to_owned(), "--version".to_owned()];
    assert!(missing.iter().all(|option| own.contains(option)), "not in `paprika agent --help`: {missing:?}");
    for option in ["--config", "--manager", "--state-dir", "--log", "--check"] {
        assert!(known.contains(option), "`paprika agent --help` promises {option}, which the daemon does not know");
    }
}

#[test]
fn tokens_allow_what_their_scope_says_until_they_are_revoked() {
    let house = House::with_agents(1);
    let secret = text(&house.paprika(&["token", "new", "watcher", "--scope", "read"]).stdout).trim().to_owned();
    let with_token = |args: &[&str]| {
        let mut command = Command::new(PAPRIKA);
        command.args(args).envs(house.variables()).env("PAPRIKA_TOKEN", &secret);
        Running::start(&mut command).finish()
    };
    assert_eq!(with_token(&["agents"]).status.code(), Some(0));
    let denied = with_token(&["cancel", "1"]);
    assert_eq!(denied.status.code(), Some(3), "{}", text(&denied.stderr));
    let tokens = house.json(&["token", "list", "-o", "json"]);
    let id = tokens.as_array().unwrap().iter().find(|token| token["name"] == "watcher").unwrap()["id"].clone();
    assert_eq!(house.paprika(&["token", "revoke", id.as_str().unwrap()]).status.code(), Some(0));
    wait_for("the token is worth nothing", || (with_token(&["agents"]).status.code() == Some(3)).then_some(()));
}

#[test]
fn an_operation_prints_what_it_answers() {
    let house = House::with_agents(2);
    let one = house.paprika(&["op", "dev-1", "agent.ping"]);
    assert!(text(&one.stdout).contains("\"pong\":true"), "{} {}", text(&one.stdout), text(&one.stderr));
    let two = text(&house.paprika(&["op", "dev-1,dev-2", "agent.ping"]).stdout);
    assert!(two.contains("dev-1  {") && two.contains("dev-2  {"), "{two}");
    let run = house.paprika(&["op", "dev-1", "command.run", "run:=[\"echo\",\"hi\"]"]);
    assert_eq!((text(&run.stdout).as_str(), run.status.code()), ("hi\n", Some(0)), "{}", text(&run.stderr));
}

#[test]
fn what_was_done_is_listed_shown_and_told() {
    let house = House::with_agents(1);
    assert_eq!(house.paprika(&["run", "dev-1", "--shell", "printf 'a\\033[2Jb'; exit 3"]).status.code(), Some(3));
    let table = text(&house.paprika(&["commands"]).stdout);
    assert!(table.lines().next().is_some_and(|head| head.trim_start().starts_with("ID  AGENT")), "{table}");
    assert!(table.contains("failed (3)") && !table.contains('\x1b'), "{table}");
    let id = house.json(&["commands", "--phase", "failed", "-o", "json"])[0]["id"].to_string();
    let card = text(&house.paprika(&["show", &id]).stdout);
    assert!(card.contains("failed with exit code 3"), "{card}");
    assert!(card.lines().any(|line| line.starts_with("stdout ") && line.ends_with(" 6 B")), "{card}");
    let yaml = text(&house.paprika(&["show", &id, "-o", "yaml"]).stdout);
    assert!(yaml.contains("phase: failed"), "{yaml}");
    let chunk = house.json(&["logs", &id, "-o", "json"]);
    assert_eq!((&chunk["stream"], &chunk["offset"], &chunk["b64"]), (&"stdout".into(), &0.into(), &"YRtbMkpi".into()));
    let events = text(&house.paprika(&["events"]).stdout);
    let head: Vec<&str> = events.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(head, ["ID", "AT", "EVENT", "AGENT", "COMMAND", "DETAILS"]);
    let row = |line: &str| line.split_whitespace().skip(3).take(2).eq(["dev-1", id.as_str()]);
    assert!(events.lines().any(row), "{events}");
    let first = house.paprika(&["events", "--after", "0", "--limit", "1"]);
    assert_eq!(text(&first.stdout).lines().count(), 2, "the head and one event");
    let documents = house.paprika(&["events", "--after", "0", "--limit", "2", "-o", "json"]);
    assert!(text(&documents.stdout).lines().all(|line| line.starts_with('{')), "programs get no head");
    let none = house.json(&["commands", "--phase", "running", "-o", "json"]);
    assert_eq!(none, serde_json::json!([]));
}

#[test]
fn a_certificate_comes_with_all_that_an_agent_needs() {
    let house = House::with_agents(0);
    let out = house.folder.join("cert");
    let shown = out.to_string_lossy().into_owned();
    let made = house.paprika(&["agent", "cert", "web1", "--out", &shown]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    for file in ["ca.pem", "cert.pem", "key.pem", "agent.yml"] {
        assert!(fs::metadata(out.join(file)).unwrap().len() > 0, "{file}");
    }
    assert_eq!(house.paprika(&["agent", "cert", "web1", "--out", &shown]).status.code(), Some(2), "not by accident");
    assert_eq!(house.paprika(&["agent", "cert", "web1", "--out", &shown, "--force"]).status.code(), Some(0));
    let agent = house.json(&["agent", "show", "web1", "-o", "json"]);
    assert_eq!((&agent["connected"], &agent["generation"]), (&false.into(), &1.into()), "{agent}");
    assert_eq!(house.paprika(&["agent", "drain", "web1"]).status.code(), Some(0));
    assert_eq!(house.json(&["agent", "show", "web1", "-o", "json"])["drained"], true);
    assert_eq!(house.paprika(&["agent", "undrain", "web1"]).status.code(), Some(0));
    assert_eq!(house.paprika(&["agent", "remove", "web1", "--yes"]).status.code(), Some(0));
    assert_eq!(house.paprika(&["agent", "show", "web1"]).status.code(), Some(4));
}

#[test]
fn help_and_completions_need_no_manager() {
    let run = |args: &[&str]| {
        Running::start(Command::new(PAPRIKA).args(args).env("PAPRIKA_API", "unix:/nonexistent/api.sock")).finish()
    };
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for verb in [
        "dev",
        "manager",
        "agent",
        "run",
        "op",
        "logs",
        "commands",
        "show",
        "cancel",
        "pause",
        "resume",
        "join-token",
        "token",
        "operator",
        "login",
        "whoami",
        "site",
        "audit",
        "ca",
        "events",
        "status",
    ] {
        assert!(text(&help.stdout).contains(&format!("\n  {verb} ")), "{verb}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert_eq!(script.status.code(), Some(0));
        assert!(text(&script.stdout).contains("paprika"), "{shell}");
    }
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert_eq!(run(&["agent", "--help"]).status.code(), Some(0));
}
