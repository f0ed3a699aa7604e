//! `show`: everything known about one command.

use api::client::Client;
use api::commands::Command;
use api::time::Time;

use super::{ending, list};
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
    add("job", command.job.map(|job| job.to_string()));
    add("attempt", (command.attempt > 1).then(|| command.attempt.to_string()));
    add("user", command.user.clone());
    add("cwd", command.cwd.clone());
    add("timeout", command.timeout.map(|timeout| timeout.to_string()));
    add("created", at(Some(command.created_at)).map(|time| format!("{time} by {}", command.created_by)));
    add("accepted", at(command.accepted_at));
    add("started", at(command.started_at));
    add("finished", at(command.finished_at));
    add("expires", at(Some(command.expires_at)).filter(|_| command.started_at.is_none() && !command.phase.is_final()));
    add(
        "progress",
        command.progress.as_ref().map(|progress| match progress.total {
            0 => progress.text.clone(),
            total => format!("{}/{total} {}", progress.current, progress.text),
        }),
    );
    add("changed", command.changed.map(|changed| if changed { "yes" } else { "no" }.to_owned()));
    add(
        "cancel",
        command.cancel.as_ref().filter(|cancel| cancel.pending).map(|cancel| format!("pending, by {}", cancel.by)),
    );
    add("value", command.value.as_ref().map(ToString::to_string));
    if let Some(usage) = command.usage {
        add("duration", usage.duration_ms.map(|ms| span(std::time::Duration::from_millis(ms))));
        add("cpu", usage.cpu_ms.map(|ms| span(std::time::Duration::from_millis(ms))));
        add("memory peak", usage.memory_peak.map(bytes));
    }
    add("isolation", command.isolation.clone());
    add("notes", (!command.flags.is_empty()).then(|| command.flags.join(", ")));
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
    if !command.phase.is_final() && !command.agent_reachable {
        add("note", Some("the agent is not connected".to_owned()));
    }
    card(&lines)
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
    use common::model::Phase;

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
    fn sizes_have_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(5 * 1024 * 1024 + 512 * 1024), "5.5 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }
}
