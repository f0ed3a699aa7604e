//! `show`: everything known about one command.

use api::client::Client;
use api::commands::{Command, LimitsRequest, Pause};
use api::time::Time;
use common::model::{Flag, Phase};
use serde_json::Value;

use super::held::{self, Hold};
use super::{ending, flags, list};
use crate::args::ShowArgs;
use crate::error::Failure;
use crate::output::{Printer, ago, card, now, span};

pub(super) async fn run(client: &Client, printer: Printer, args: &ShowArgs) -> Result<(), Failure> {
    let command = client.command(args.id).await?;
    printer.document(&command, |command| text(command, now()))
}

fn text(command: &Command, now: Time) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("id", command.id.to_string()),
        ("agent", command.agent.to_string()),
        ("command", list::what(command)),
        ("operation", command.operation.clone()),
        ("status", ending::sentence(command)),
    ];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    let at = |time: Option<Time>| time.map(|time| format!("{time} ({})", ago(time, now)));
    add("exit code", command.exit_code.map(|code| code.to_string()));
    add("signal", command.signal.filter(|_| command.phase != Phase::Failed).map(ending::signal_name));
    add("job", command.job.map(|job| job.to_string()));
    add("attempt", (command.attempt > 1).then(|| command.attempt.to_string()));
    add("user", command.user.clone());
    add("cwd", command.cwd.clone());
    for guard in ["creates", "removes", "unless", "only_if"] {
        add("guard", command.args.get(guard).map(|value| format!("{guard} {}", words(value))));
    }
    add(
        "secret",
        (!command.secrets.is_empty()).then(|| command.secrets.keys().cloned().collect::<Vec<_>>().join(", ")),
    );
    add("timeout", command.timeout.map(|timeout| timeout.to_string()));
    add("limits", command.limits.as_ref().map(limits));
    for option in options(command) {
        add("option", Some(option));
    }
    add("created", at(Some(command.created_at)).map(|time| format!("{time} by {}", command.created_by)));
    add("accepted", at(command.accepted_at));
    add("started", at(command.started_at));
    add("finished", at(command.finished_at));
    add("expires", at(Some(command.expires_at)).filter(|_| command.started_at.is_none() && !command.phase.is_final()));
    let (hold, why) = held::reason(command).unzip();
    add(
        "progress",
        // What is told as the reason of a standstill is told once.
        command.progress.as_ref().filter(|_| !matches!(hold, Some(Hold::Waiting | Hold::Stuck))).map(|progress| {
            match progress.total {
                0 => progress.text.clone(),
                total => format!("{}/{total} {}", progress.current, progress.text),
            }
        }),
    );
    add("changed", command.changed.map(|changed| if changed { "yes" } else { "no" }.to_owned()));
    add(
        "cancel",
        command.cancel.as_ref().filter(|cancel| cancel.pending).map(|cancel| format!("pending, by {}", cancel.by)),
    );
    if let Some(pause) = &command.pause {
        add(if pause.paused { "pause" } else { "resume" }, Some(wish(command, pause, now)));
    }
    // What a guard saw is told by the status.
    add("value", command.value.as_ref().filter(|_| ending::skipped(command).is_none()).map(ToString::to_string));
    if let Some(usage) = &command.usage {
        add("duration", usage.duration_ms.map(|ms| span(std::time::Duration::from_millis(ms))));
        add("cpu", usage.cpu_ms.map(|ms| span(std::time::Duration::from_millis(ms))));
        add("memory peak", usage.memory_peak.map(bytes));
        add("read", usage.io_read.map(bytes));
        add("written", usage.io_written.map(bytes));
        add("tasks peak", usage.tasks_peak.map(|tasks| tasks.to_string()));
    }
    add("isolation", command.isolation.clone());
    for flag in command.flags.iter().filter(|flag| *flag != Flag::Skipped.word()) {
        add("note", Some(flags::sentence(flag)));
    }
    for (name, stream) in &command.streams {
        let missing: u64 = stream.gaps.iter().map(|gap| gap.length).sum();
        let mut words = bytes(stream.length);
        if missing > 0 {
            words.push_str(&format!(", {} of them lost", bytes(missing)));
        }
        if !stream.end {
            words.push_str(" so far");
        }
        add(name.as_str(), Some(words));
    }
    match (hold, why) {
        // The status tells the one, the wish the other.
        (Some(Hold::Waiting), _) => {}
        (Some(Hold::Paused), _) if command.pause.is_some() => {}
        (_, Some(why)) => add("note", Some(format!("it {why}"))),
        _ if !command.phase.is_final() && !command.agent_reachable => {
            add("note", Some("the agent is not connected: this is what it said last".to_owned()));
        }
        _ => {}
    }
    card(&lines)
}

/// A value of the arguments as it was meant: a text bare, a list as words.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list::line(list),
        other => other.to_string(),
    }
}

fn limits(limits: &LimitsRequest) -> String {
    let given = |name: &str, value: Option<&str>| value.map(|value| format!("{name} {value}"));
    let tasks = limits.tasks.map(|tasks| tasks.to_string());
    let parts = [
        given("memory", limits.memory.as_deref()),
        given("memory_high", limits.memory_high.as_deref()),
        given("cpu", limits.cpu.as_deref()),
        given("tasks", tasks.as_deref()),
        given("output", limits.output.as_deref()),
        limits.best_effort.then(|| "best effort".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The options that differ from what every command gets.
fn options(command: &Command) -> Vec<String> {
    let options = [
        command.umask.as_ref().map(|umask| format!("umask {umask}")),
        command.nice.map(|nice| format!("nice {nice}")),
        command.oom_score.map(|score| format!("oom_score {score}")),
        command.stop_signal.as_ref().map(|signal| format!("stop signal {signal}")),
        command.stop_only_main.then(|| "only its main process is asked to end".to_owned()),
        command.grace.map(|grace| format!("killed {grace} after it was asked to end")),
        command.keep_strays.then(|| "what it leaves running lives on".to_owned()),
        command.idempotent.then(|| "idempotent".to_owned()),
    ];
    options.into_iter().flatten().collect()
}

/// Who wants it to pause or go on, and whether its agent knows.
fn wish(command: &Command, pause: &Pause, now: Time) -> String {
    let mut words = format!("by {} {}", pause.by, ago(pause.at, now));
    match &pause.refused {
        Some(code) => words.push_str(&format!(", which its agent would not do [{code}]")),
        None if pause.pending => words.push_str(", not yet heard by its agent"),
        None if pause.paused => words.push_str(&format!("; it goes on after `paprika resume {}`", command.id)),
        None => {}
    }
    words
}

/// A size for people, with the exact number of bytes below a KiB.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in UNITS.into_iter().skip(1) {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    format!("{size:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ending::sample::command;
    use super::*;

    #[test]
    fn a_card_says_what_happened() {
        let mut failed = command(Phase::Failed);
        failed.exit_code = Some(3);
        failed.accepted_at = Some(Time(1_767_225_600_005));
        failed.started_at = Some(Time(1_767_225_600_010));
        failed.finished_at = Some(Time(1_767_225_601_010));
        failed.isolation = Some("cgroup".into());
        insta::assert_snapshot!(text(&failed, Time(1_767_225_660_000)), @r"
        id         42
        agent      web1
        command    uname -a
        operation  command.run
        status     failed with exit code 3
        exit code  3
        created    2026-01-01T00:00:00.000Z (60s ago) by admin
        accepted   2026-01-01T00:00:00.005Z (59s ago)
        started    2026-01-01T00:00:00.010Z (59s ago)
        finished   2026-01-01T00:00:01.010Z (58s ago)
        isolation  cgroup
        stdout     0 B
        ");
    }

    #[test]
    fn a_card_has_what_was_asked_for_and_what_was_used() {
        let mut done: Command = command(Phase::Succeeded);
        done.args = json!({"run": ["make"], "unless": ["test", "-e", "a b"], "creates": "/srv/app"});
        done.user = Some("app".into());
        done.exit_code = Some(0);
        done.limits =
            serde_json::from_value(json!({"memory": "1G", "cpu": "50%", "tasks": 64, "best_effort": true})).ok();
        done.umask = Some("0027".into());
        done.nice = Some(5);
        done.oom_score = Some(-100);
        done.stop_signal = Some("INT".into());
        done.stop_only_main = true;
        done.grace = "2s".parse().ok();
        done.keep_strays = true;
        done.flags = vec!["limits_not_enforced".into(), "alive:2".into(), "new_word".into()];
        done.usage = serde_json::from_value(json!({
            "duration_ms": 1500, "cpu_ms": 20, "memory_peak": 2_097_152, "io_read": 4096, "io_written": 0, "tasks_peak": 7
        }))
        .ok();
        insta::assert_snapshot!(text(&done, Time(1_767_225_660_000)), @"
        id           42
        agent        web1
        command      make
        operation    command.run
        status       succeeded
        exit code    0
        user         app
        guard        creates /srv/app
        guard        unless test -e 'a b'
        limits       memory 1G, cpu 50%, tasks 64, best effort
        option       umask 0027
        option       nice 5
        option       oom_score -100
        option       stop signal INT
        option       only its main process is asked to end
        option       killed 2s after it was asked to end
        option       what it leaves running lives on
        created      2026-01-01T00:00:00.000Z (60s ago) by admin
        duration     1.5s
        cpu          20ms
        memory peak  2.0 MiB
        read         4.0 KiB
        written      0 B
        tasks peak   7
        note         the host cannot enforce a limit of it; it ran without that limit, as --best-effort allows
        note         processes of it may still be alive (2)
        note         new_word
        stdout       0 B
        ");
    }

    #[test]
    fn a_card_says_why_nothing_happens() {
        let mut waiting = command(Phase::Waiting);
        waiting.waiting = Some("parallel_limit".into());
        waiting.progress = serde_json::from_value(json!({"current": 3, "total": 17, "text": "parallel_limit"})).ok();
        let mut paused = command(Phase::Paused);
        paused.pause =
            Some(Pause { paused: true, by: "ann".into(), at: Time(1_767_225_600_000), pending: false, refused: None });
        let mut stuck = command(Phase::Stopping);
        stuck.progress = serde_json::from_value(json!({"current": 0, "total": 0, "text": "stuck: pids 12 13"})).ok();
        let mut away = command(Phase::Running);
        away.agent_reachable = false;
        away.pause = paused.pause.clone().map(|pause| Pause { pending: true, ..pause });
        let mut skipped = command(Phase::Succeeded);
        skipped.flags = vec!["skipped".into()];
        skipped.value = Some(json!({"skipped": "creates", "text": "/x exists"}));
        let cards: Vec<String> = [waiting, paused, stuck, away, skipped]
            .iter()
            .map(|command| text(command, Time(1_767_225_660_000)))
            .map(|card| card.lines().skip(4).map(|line| format!("{line}\n")).collect())
            .collect();
        insta::assert_snapshot!(cards.join("\n"), @"
        status     waits for a free place: 3rd of 17
        created    2026-01-01T00:00:00.000Z (60s ago) by admin
        expires    2026-01-02T00:00:00.000Z (in 23h)
        stdout     0 B

        status     paused
        created    2026-01-01T00:00:00.000Z (60s ago) by admin
        expires    2026-01-02T00:00:00.000Z (in 23h)
        pause      by ann 60s ago; it goes on after `paprika resume 42`
        stdout     0 B

        status     stopping
        created    2026-01-01T00:00:00.000Z (60s ago) by admin
        expires    2026-01-02T00:00:00.000Z (in 23h)
        stdout     0 B
        note       it was killed and does not end: pids 12 13

        status     running
        created    2026-01-01T00:00:00.000Z (60s ago) by admin
        expires    2026-01-02T00:00:00.000Z (in 23h)
        pause      by ann 60s ago, not yet heard by its agent
        stdout     0 B
        note       the agent is not connected: this is what it said last

        status     skipped, nothing was run: /x exists (creates)
        created    2026-01-01T00:00:00.000Z (60s ago) by admin
        stdout     0 B
        ");
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(5 * 1024 * 1024 + 512 * 1024), "5.5 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }
}
