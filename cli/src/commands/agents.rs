//! `agents`: lists the fleet, or the part of it that an expression means.

use api::agents::Agent;
use api::client::Client;
use api::page::MAX_LIMIT;
use api::time::Time;

use super::show::bytes;
use super::target;
use crate::args::AgentsArgs;
use crate::error::Failure;
use crate::output::{Align, Printer, Table, ago, columns, now};

pub(super) async fn run(client: &Client, printer: Printer, args: &AgentsArgs) -> Result<(), Failure> {
    let agents = match &args.target {
        Some(targets) => target::list(client, targets.text()).await?,
        None => all(client).await?,
    };
    printer.document(&agents, |agents| table(agents, now()).lay_out(columns()))
}

async fn all(client: &Client) -> Result<Vec<Agent>, Failure> {
    let mut agents: Vec<Agent> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = client.agents(after.as_deref(), Some(MAX_LIMIT)).await?;
        agents.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(agents);
        }
    }
}

fn table(agents: &[Agent], now: Time) -> Table<8> {
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("STATUS", Align::Left),
        ("SINCE", Align::Left),
        ("VERSION", Align::Left),
        ("CORES", Align::Right),
        ("MEMORY", Align::Right),
        ("GROUPS", Align::Left),
        ("LABELS", Align::Left),
    ]);
    let dash = || "-".to_owned();
    for agent in agents {
        let since = if agent.connected { agent.connected_at } else { agent.disconnected_at };
        let labels: Vec<String> = agent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row([
            agent.name.to_string(),
            status(agent),
            since.map_or_else(dash, |since| ago(since, now)),
            agent.version.clone().unwrap_or_else(dash),
            agent.cores.map_or_else(dash, |cores| cores.to_string()),
            agent.memory_bytes.map_or_else(dash, bytes),
            if agent.groups.is_empty() { dash() } else { agent.groups.join(" ") },
            if labels.is_empty() { dash() } else { labels.join(" ") },
        ]);
    }
    table
}

/// Whether it is here, and what keeps it from work.
pub(super) fn status(agent: &Agent) -> String {
    let mut words = if agent.connected { "connected" } else { "away" }.to_owned();
    if agent.quarantined.is_some() {
        words = "quarantined".to_owned();
    }
    if agent.drained {
        words.push_str(", drained");
    }
    words
}

#[cfg(test)]
mod tests {
    use common::id::Name;

    use super::*;

    #[test]
    fn a_fleet_for_people() -> Result<(), common::id::IdError> {
        let now = Time(1_767_225_690_000);
        let agent = |name: &str| -> Result<Agent, common::id::IdError> {
            let name: Name = name.parse()?;
            Ok(Agent {
                name,
                generation: 1,
                connected: true,
                created_at: Time(1_767_225_600_000),
                connected_at: Some(Time(1_767_225_600_000)),
                disconnected_at: None,
                address: None,
                version: Some("0.1.0".into()),
                isolation: None,
                cores: Some(8),
                memory_bytes: Some(16 << 30),
                groups: vec!["web".into(), "base".into()],
                labels: [("rack".to_owned(), "a\u{1b}[2J".to_owned())].into(),
                quarantined: None,
                drained: false,
            })
        };
        let mut away = agent("database-2")?;
        (away.connected, away.drained, away.version, away.cores, away.memory_bytes) = (false, true, None, None, None);
        away.labels.clear();
        away.groups.clear();
        let mut cloned = agent("web2")?;
        cloned.quarantined = Some("two hosts".into());
        insta::assert_snapshot!(table(&[agent("web1")?, away, cloned], now).lay_out(None), @r"
        NAME        STATUS         SINCE    VERSION  CORES    MEMORY  GROUPS    LABELS
        web1        connected      90s ago  0.1.0        8  16.0 GiB  web base  rack=a\u{1b}[2J
        database-2  away, drained  -        -            -         -  -         -
        web2        quarantined    90s ago  0.1.0        8  16.0 GiB  web base  rack=a\u{1b}[2J
        ");
        Ok(())
    }
}
