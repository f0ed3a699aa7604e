//! A report as a page for people. Names that come from a manager or a disk are escaped: nothing moves the cursor.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use common::config::HumanDuration;
use common::escape;

use super::report::{AgentReport, CommandReport, Disk, Phase, Report};

/// Characters of a uid that tell commands of one host apart.
const SHORT_UID: usize = 8;
/// Heads of the table; numbers stand to the right.
const HEADS: [(&str, bool); 10] = [
    ("ID", true),
    ("UID", false),
    ("OPERATION", false),
    ("PHASE", false),
    ("SINCE", true),
    ("PID", true),
    ("ISOLATION", false),
    ("OUTPUT", true),
    ("SHIM", false),
    ("CGROUP", false),
];

/// The whole page at wall time `now_ms`.
pub(super) fn table(report: &Report, now_ms: u64) -> String {
    let mut page = String::new();
    let mut line = |head: &str, text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{head:<9} {text}");
    };
    line("state", format!("{} (journal {})", path(&report.state_dir), shown(report.journal.as_deref())));
    line("agent", agent(&report.agent, now_ms));
    line("cgroups", cgroups(&report.agent));
    line("places", places(report));
    line("disk", disk(&report.disk));
    line("kept", format!("{} delivered, {} in quarantine", report.kept, report.quarantined));
    page.push('\n');
    if report.commands.is_empty() {
        page.push_str("No commands are here.\n");
    } else {
        rows(&mut page, report.commands.iter().map(|one| row(one, now_ms)).collect());
    }
    for one in &report.unreadable {
        let _ = writeln!(page, "{} cannot be read: {}", escape::text(&one.uid), escape::text(&one.reason));
    }
    page
}

fn agent(agent: &AgentReport, now_ms: u64) -> String {
    let mut text = agent.name.as_deref().map_or_else(|| "?".to_owned(), escape::text);
    if let Some(version) = &agent.version {
        let _ = write!(text, " {}", escape::text(version));
    }
    match (agent.running, agent.pid) {
        (true, Some(pid)) => {
            let _ = write!(text, " runs, pid {pid}");
            if let Some(since) = agent.since_ms {
                let _ = write!(text, ", for {}", ago(since, now_ms));
            }
        }
        // An agent of before, or one that is in another namespace of process numbers.
        (true, None) => text.push_str(" runs, pid not known"),
        (false, _) => text.push_str(" does not run"),
    }
    text
}

fn cgroups(agent: &AgentReport) -> String {
    let mut text = match (&agent.cgroup, agent.isolation.as_deref()) {
        (Some(folder), _) => format!("{} ({})", path(folder), shown(agent.rung.as_deref())),
        (None, Some(_)) => "none: processes are found by session and parentage (best_effort)".to_owned(),
        (None, None) => "not known: the agent has not said so".to_owned(),
    };
    for (name, folder) in &agent.controllers {
        let _ = write!(text, "; {} in {}", escape::text(name), path(folder));
    }
    if agent.isolation.is_some() && !agent.running {
        text.push_str(", when it ran last");
    }
    text
}

fn places(report: &Report) -> String {
    let counts = |wanted: Phase| report.commands.iter().filter(|one| one.phase == wanted).count();
    let busy = report.commands.iter().filter(|one| one.phase < Phase::Accepted).count();
    let max = report.agent.max_running.map_or_else(|| "?".to_owned(), |max| max.to_string());
    format!("{busy} of {max} taken, {} accepted, {} waiting", counts(Phase::Accepted), counts(Phase::Waiting))
}

fn disk(disk: &Disk) -> String {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), human);
    let mut text = format!("{} free of {}, ", size(disk.free), size(disk.total));
    match (disk.reserve, disk.reserve_wanted) {
        (0, Some(0)) => text.push_str("no reserve is wanted"),
        (0, None) => text.push_str("no reserve"),
        (0, Some(wanted)) => {
            let _ = write!(text, "the reserve of {} is given up", human(wanted));
        }
        (held, _) => {
            let _ = write!(text, "{} in reserve", human(held));
        }
    }
    text
}

fn row(one: &CommandReport, now_ms: u64) -> Vec<String> {
    let none = || "-".to_owned();
    let mut phase = one.phase.word().to_owned();
    if let Some(outcome) = one.outcome {
        let _ = write!(phase, " ({outcome})");
    }
    if !one.stuck.is_empty() {
        let pids: Vec<_> = one.stuck.iter().map(ToString::to_string).collect();
        let _ = write!(phase, " (stuck: {})", pids.join(" "));
    }
    let streams: Vec<_> = one.streams.iter().map(|(name, bytes)| format!("{name} {}", human(*bytes))).collect();
    let shim = match (one.shim_alive, one.phase) {
        (true, _) => "alive".to_owned(),
        (false, Phase::Running | Phase::Paused | Phase::Stopping) => "gone".to_owned(),
        (false, _) => none(),
    };
    vec![
        one.id.to_string(),
        one.uid.chars().take(SHORT_UID).collect(),
        escape::text(&one.operation),
        phase,
        ago(one.since_ms, now_ms),
        one.pid.map_or_else(none, |pid| pid.to_string()),
        one.isolation.as_deref().map_or_else(none, escape::text),
        if streams.is_empty() { none() } else { streams.join(", ") },
        shim,
        one.cgroup.as_deref().map_or_else(none, path),
    ]
}

/// Aligned columns; the last one is as long as it is.
fn rows(page: &mut String, rows: Vec<Vec<String>>) {
    let heads = HEADS.iter().map(|(head, _)| (*head).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let widths: Vec<usize> = (0..HEADS.len())
        .map(|column| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in &all {
        let mut line = String::new();
        for ((cell, width), (_, is_number)) in row.iter().zip(&widths).zip(HEADS) {
            let gap = if line.is_empty() { "" } else { "  " };
            let _ = match is_number {
                true => write!(line, "{gap}{cell:>width$}"),
                false => write!(line, "{gap}{cell:<width$}"),
            };
        }
        page.push_str(line.trim_end());
        page.push('\n');
    }
}

/// How long ago, to the second; a clock that was set back makes it nothing.
fn ago(at_ms: u64, now_ms: u64) -> String {
    HumanDuration(Duration::from_secs(now_ms.saturating_sub(at_ms) / 1000)).to_string()
}

/// Bytes with one decimal place at most.
fn human(bytes: u64) -> String {
    let unit = ["K", "M", "G", "T"].into_iter().enumerate().rev().find(|(power, _)| bytes >> (10 * (power + 1)) > 0);
    let Some((power, unit)) = unit else { return bytes.to_string() };
    let tenths = (u128::from(bytes) * 10) >> (10 * (power + 1));
    match tenths % 10 {
        0 => format!("{}{unit}", tenths / 10),
        tenth => format!("{}.{tenth}{unit}", tenths / 10),
    }
}

fn shown(text: Option<&str>) -> String {
    text.map_or_else(|| "?".to_owned(), escape::text)
}

fn path(path: &Path) -> String {
    escape::text(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::report::Unreadable;
    use super::*;

    fn command(id: u64, phase: Phase) -> CommandReport {
        CommandReport {
            id,
            uid: format!("{id:032x}"),
            operation: "command.run".into(),
            phase,
            since_ms: 1_000_000,
            pid: (phase < Phase::Accepted).then_some(4711),
            cgroup: (phase < Phase::Accepted).then(|| "/sys/fs/cgroup/p/1".into()),
            isolation: (phase < Phase::Accepted).then(|| "cgroup".into()),
            streams: BTreeMap::new(),
            shim_alive: phase < Phase::Accepted,
            stuck: Vec::new(),
            outcome: None,
        }
    }

    fn report(commands: Vec<CommandReport>) -> Report {
        Report {
            state_dir: "/var/lib/paprika-agent".into(),
            journal: Some("ab".into()),
            agent: AgentReport {
                running: true,
                pid: Some(12),
                name: Some("web1".into()),
                version: Some("0.2.0".into()),
                since_ms: Some(940_000),
                isolation: Some("cgroup".into()),
                rung: Some("v2".into()),
                cgroup: Some("/sys/fs/cgroup/p".into()),
                controllers: [("memory".to_owned(), "/m/p".into())].into(),
                max_running: Some(256),
            },
            disk: Disk { free: Some(3 << 29), total: Some(1 << 31), reserve: 4 << 20, reserve_wanted: Some(4 << 20) },
            commands,
            kept: 2,
            quarantined: 1,
            unreadable: Vec::new(),
        }
    }

    #[test]
    fn the_page_stands_as_written() {
        let mut running = command(7, Phase::Running);
        running.streams = [("stdout", 1536), ("stderr", 3)].into();
        let stuck = CommandReport { stuck: vec![8, 9], ..command(123, Phase::Stopping) };
        let ended = CommandReport { outcome: Some("failed"), ..command(8, Phase::Ended) };
        let mut report = report(vec![running, stuck, command(9, Phase::Waiting), ended]);
        report.unreadable.push(Unreadable { uid: "ff".into(), reason: "damaged".into() });
        let expected = "\
state     /var/lib/paprika-agent (journal ab)
agent     web1 0.2.0 runs, pid 12, for 2m 5s
cgroups   /sys/fs/cgroup/p (v2); memory in /m/p
places    2 of 256 taken, 0 accepted, 1 waiting
disk      1.5G free of 2G, 4M in reserve
kept      2 delivered, 1 in quarantine

 ID  UID       OPERATION    PHASE                  SINCE   PID  ISOLATION                 OUTPUT  SHIM   CGROUP
  7  00000000  command.run  running                1m 5s  4711  cgroup     stderr 3, stdout 1.5K  alive  /sys/fs/cgroup/p/1
123  00000000  command.run  stopping (stuck: 8 9)  1m 5s  4711  cgroup                         -  alive  /sys/fs/cgroup/p/1
  9  00000000  command.run  waiting                1m 5s     -  -                              -  -      -
  8  00000000  command.run  ended (failed)         1m 5s     -  -                              -  -      -
ff cannot be read: damaged
";
        assert_eq!(table(&report, 1_065_999), expected);
    }

    #[test]
    fn what_is_not_known_is_said_and_not_guessed() {
        let mut report = report(Vec::new());
        report.agent = AgentReport { running: true, ..AgentReport::default() };
        report.disk = Disk::default();
        report.journal = None;
        let page = table(&report, 0);
        for part in
            ["? runs, pid not known", "not known: the agent has not said so", "0 of ? taken", "? free of ?, no reserve"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
        report.agent = AgentReport { isolation: Some("best_effort".into()), ..AgentReport::default() };
        report.disk.reserve_wanted = Some(1 << 20);
        let page = table(&report, 0);
        for part in ["does not run", "(best_effort), when it ran last", "the reserve of 1M is given up", "No commands"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
    }

    #[test]
    fn a_hostile_name_moves_no_cursor() {
        let evil = CommandReport { operation: "\u{1b}[2Jx\n".into(), ..command(1, Phase::Running) };
        assert!(!table(&report(vec![evil]), 0).contains('\u{1b}'));
    }

    #[test]
    fn sizes_have_one_decimal_place_at_most() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1024, "1K"), (1536, "1.5K"), (1 << 20, "1M"), (u64::MAX, "16777215.9T")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
