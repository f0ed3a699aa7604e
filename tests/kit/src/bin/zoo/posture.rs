//! Says as JSON what a process of a command was given: who it is, where it stands, what it inherited.

use std::fs::{self, OpenOptions};
use std::io::Read as _;

use serde_json::{Map, Value, json};

use crate::{Call, floor};

/// Longest input that is told.
const INPUT: u64 = 64 * 1024;

/// Prints one line and ends.
pub(crate) fn posture(_call: &Call) -> ! {
    // First: whatever is opened later would be among them.
    let open = descriptors();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let numbers = |name: &str| -> Vec<u64> {
        field(name).split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut input = Vec::new();
    let input_read = std::io::stdin().take(INPUT).read_to_end(&mut input).is_ok();
    let told = json!({
        "pid": std::process::id(),
        "session": floor::session(),
        "group": floor::group(),
        "terminal": OpenOptions::new().read(true).write(true).open("/dev/tty").is_ok(),
        "uid": numbers("Uid"),
        "gid": numbers("Gid"),
        "groups": numbers("Groups"),
        "no_new_privs": field("NoNewPrivs") == "1",
        "umask": field("Umask"),
        "nice": after_name.split_ascii_whitespace().nth(16).and_then(|word| word.parse::<i32>().ok()),
        "oom_score": fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse::<i32>().ok()),
        "signals": {
            "blocked": field("SigBlk"), "ignored": field("SigIgn"), "caught": field("SigCgt"), "pending": field("ShdPnd"),
        },
        "capabilities": field("CapEff"),
        "threads": field("Threads"),
        "cwd": fs::read_link("/proc/self/cwd").map(|path| path.display().to_string()).unwrap_or_default(),
        "open": open,
        "limits": limits(),
        "env": environment(),
        "argv": std::env::args().collect::<Vec<_>>(),
        "input": if input_read { Value::from(String::from_utf8_lossy(&input).into_owned()) } else { Value::Null },
        "cgroup": fs::read_to_string("/proc/self/cgroup").unwrap_or_default().lines().collect::<Vec<_>>(),
    });
    let line = format!("{told}\n");
    floor::write(1, line.as_bytes());
    floor::end(0)
}

/// Numbers of open descriptors with what they lead to; the one of the listing itself is left out.
fn descriptors() -> Map<String, Value> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Map::new() };
    let all: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    all.into_iter()
        .filter_map(|number| {
            let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
            Some((number, Value::from(target.display().to_string())))
        })
        .collect()
}

/// Soft and hard limits by the kernel's own names.
fn limits() -> Map<String, Value> {
    let table = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let lines = table.lines().skip(1).filter_map(|line| {
        let (name, rest) = (line.get(..25)?.trim(), line.get(25..)?);
        let mut words = rest.split_ascii_whitespace();
        Some((name.to_owned(), json!([words.next()?, words.next()?])))
    });
    lines.collect()
}

fn environment() -> Map<String, Value> {
    let variables = std::env::vars_os();
    variables.map(|(key, value)| (key.to_string_lossy().into_owned(), value.to_string_lossy().into())).collect()
}
