//! `status`: how the manager is.

use std::time::Duration;

use api::client::Client;
use api::status::Status;
use api::time::Time;

use crate::error::Failure;
use crate::output::{Printer, ago, card, now, span};

pub(super) async fn run(client: &Client, printer: Printer) -> Result<(), Failure> {
    let status = client.status().await?;
    printer.document(&status, |status| text(status, &client.address(), now()))
}

fn text(status: &Status, address: &str, now: Time) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("manager", format!("{} at {address}", status.version)),
        ("cluster", status.cluster.clone()),
        ("up", span(Duration::from_secs(status.uptime_seconds.max(1)))),
        ("agents", format!("{} of {} connected", status.connected, status.agents)),
    ];
    let commands: Vec<String> = status.commands.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    lines.push(("commands", if commands.is_empty() { "none".to_owned() } else { commands.join(", ") }));
    lines.push(("store", format!("position {}, incarnation {}", status.store_position, status.incarnation)));
    if status.draining {
        lines.push(("draining", "no new work is taken".to_owned()));
    }
    for trouble in &status.degraded {
        lines.push(("trouble", trouble.clone()));
    }
    for work in &status.background {
        let ran = work.last_run.map_or_else(|| "not yet".to_owned(), |at| ago(at, now));
        let result = work.last_result.as_deref().map(|result| format!(": {result}")).unwrap_or_default();
        lines.push(("background", format!("{} {ran}{result}", work.name.trim_start_matches("background."))));
    }
    card(&lines)
}

#[cfg(test)]
mod tests {
    use api::status::BackgroundWork;

    use super::*;

    #[test]
    fn trouble_is_seen() {
        let status = Status {
            version: "0.1.0".into(),
            cluster: "home".into(),
            uptime_seconds: 7_300,
            agents: 3,
            connected: 2,
            commands: [("running".to_owned(), 1), ("succeeded".to_owned(), 40)].into(),
            store_position: 99,
            incarnation: 1,
            draining: false,
            degraded: vec!["the disk is full".into()],
            background: vec![BackgroundWork {
                name: "retention".into(),
                last_run: Some(Time(0)),
                last_result: Some("0 removed".into()),
            }],
        };
        insta::assert_snapshot!(text(&status, "unix:/x", Time(5_000)), @r"
        manager     0.1.0 at unix:/x
        cluster     home
        up          2h
        agents      2 of 3 connected
        commands    1 running, 40 succeeded
        store       position 99, incarnation 1
        trouble     the disk is full
        background  retention 5s ago: 0 removed
        ");
    }
}
