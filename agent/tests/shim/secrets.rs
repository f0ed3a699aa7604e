//! Secrets on their way to the process: they reach it, and nothing else shows them.

use std::fs;
use std::path::Path;

use common::model::{Outcome, StreamName};
use common::wire;

use super::kit::{House, shell, text};

const CANARY: &str = "canary-4711-canary";

fn with_secrets(line: &str) -> wire::Command {
    let env = [("TOKEN".to_owned(), CANARY.into())].into();
    let secrets = wire::Secrets { env, stdin: CANARY.into(), has_stdin: true };
    wire::Command { secrets: Some(secrets), needs: vec!["secrets".to_owned()], ..shell(line) }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Everything below a folder that holds the canary.
fn showing(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        // A FIFO would wait for somebody who writes.
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(showing(&path));
        } else if kind.is_file() && has(&fs::read(&path).unwrap_or_default(), CANARY) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Protocol R-SECRET-2, R-SECRET-3.
#[test]
fn the_process_has_them_and_neither_its_files_nor_its_shim_show_them() {
    let house = House::new();
    let gate = house.state.path().join("gate");
    let line = format!(
        "[ ${{#TOKEN}} = {0} ] && [ $(wc -c) = {0} ] && echo both; while [ ! -e {1} ]; do sleep 0.01; done",
        CANARY.len(),
        gate.display()
    );
    let uid = house.accept(with_secrets(&line));
    assert_eq!(showing(house.state.path()), Vec::<String>::new());
    let running = house.launch(uid);
    running.wait_for_output("both");
    let shim = running.shim_id();
    for file in ["environ", "cmdline"] {
        let shown = fs::read(format!("/proc/{shim}/{file}")).unwrap();
        assert!(!has(&shown, CANARY), "{file} of the shim");
    }
    let main = running.history().start.unwrap().pid;
    assert!(!has(&fs::read(format!("/proc/{main}/cmdline")).unwrap(), CANARY));
    assert!(has(&fs::read(format!("/proc/{main}/environ")).unwrap(), CANARY), "its own is its own");
    fs::write(&gate, "").unwrap();
    let end = running.end();
    assert_eq!((end.outcome, end.exit_code), (Outcome::Succeeded, Some(0)));
    assert_eq!(showing(house.state.path()), Vec::<String>::new());
}

/// Protocol R-SECRET-3.
#[test]
fn without_the_key_nothing_is_started_and_the_end_says_why() {
    let house = House::new();
    let mark = house.state.path().join("ran");
    let uid = house.accept(with_secrets(&format!("touch {}", mark.display())));
    let key = house.state.path().join("seal.key");
    fs::remove_file(&key).unwrap();
    let end = house.launch(uid).end();
    let failure = end.error.unwrap();
    assert_eq!((end.outcome, failure.code.as_str()), (Outcome::Refused, "secrets_lost"));
    assert!(failure.text.contains("seal.key") && !failure.text.contains(CANARY), "{}", failure.text);
    assert!(!mark.exists());
}

#[test]
fn a_guard_sees_the_variables_and_not_the_input() {
    let house = House::new();
    let args = format!(r#"{{"shell":"wc -c","only_if":"[ ${{#TOKEN}} = {} ] && [ $(wc -c) = 0 ]"}}"#, CANARY.len());
    let command = wire::Command { args: args.into_bytes().into(), ..with_secrets("true") };
    let running = house.start(command);
    let uid = running.uid;
    assert_eq!(running.end().outcome, Outcome::Succeeded);
    assert_eq!(text(&house, uid, StreamName::Stdout).trim(), CANARY.len().to_string());
}

#[test]
fn no_dump_is_left_of_a_command_with_secrets_and_others_begin_as_their_agent_did() {
    let house = House::new();
    let limit = |command| {
        let running = house.start(command);
        let uid = running.uid;
        running.end();
        text(&house, uid, StreamName::Stdout).trim().to_owned()
    };
    let line = "awk '/^Max core/ { print $5 }' /proc/self/limits";
    assert_eq!(limit(with_secrets(line)), "0");
    let ours = fs::read_to_string("/proc/self/limits").unwrap();
    let ours = ours.lines().find(|line| line.starts_with("Max core")).unwrap();
    assert_eq!(limit(shell(line)), ours.split_whitespace().nth(4).unwrap());
}
