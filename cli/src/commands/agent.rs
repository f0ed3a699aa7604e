//! `agent show|accept|remove|drain|undrain|cert`: one agent.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use api::agents::{Agent, AgentChange};
use api::client::Client;
use api::time::Time;
use common::id::Name;

use super::agents::status;
use super::certificate;
use super::show::bytes;
use crate::args::{AgentRemove, AgentVerb};
use crate::error::{Failure, Kind};
use crate::output::{Printer, ago, card, note, now};

pub(super) async fn run(client: &Client, printer: Printer, verb: &AgentVerb) -> Result<(), Failure> {
    let change = |drained, accept| AgentChange { drained, accept };
    match verb {
        AgentVerb::Show(args) => print(printer, &client.agent(&args.name).await?),
        AgentVerb::Accept(args) => apply(client, printer, &args.name, change(None, Some(true))).await,
        AgentVerb::Drain(args) => apply(client, printer, &args.name, change(Some(true), None)).await,
        AgentVerb::Undrain(args) => apply(client, printer, &args.name, change(Some(false), None)).await,
        AgentVerb::Remove(args) => remove(client, args).await,
        AgentVerb::Cert(args) => {
            let answer = client.agent_certificate(&args.name).await?;
            let written = certificate::write(&answer, &args.out, args.force)?;
            printer.document(&written, |written| {
                written.files.iter().map(|file| format!("{}\n", file.display())).collect()
            })?;
            note(&format!("start the agent with: paprika agent --config {}", written.config.display()));
            Ok(())
        }
    }
}

async fn apply(client: &Client, printer: Printer, name: &Name, change: AgentChange) -> Result<(), Failure> {
    print(printer, &client.change_agent(name, &change).await?)
}

async fn remove(client: &Client, args: &AgentRemove) -> Result<(), Failure> {
    // Ask about what is there: a wrong name is told before the question, not after it.
    let agent = client.agent(&args.name).await?;
    if !args.yes && !is_confirmed(&agent)? {
        return Err(Failure::new(Kind::Work, "nothing was removed"));
    }
    client.remove_agent(&args.name).await?;
    note(&format!("agent {} was removed", args.name));
    Ok(())
}

fn is_confirmed(agent: &Agent) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Kind::Usage, "removing an agent needs --yes where nobody can be asked"));
    }
    let mut answer = String::new();
    write!(
        io::stderr().lock(),
        "Remove agent {} ({})? What runs there is given up. Type its name: ",
        agent.name,
        status(agent)
    )
    .and_then(|()| io::stdin().lock().read_line(&mut answer))
    .map_err(|error| Failure::new(Kind::Work, "the question could not be asked").because(error))?;
    Ok(answer.trim() == agent.name.as_str())
}

fn print(printer: Printer, agent: &Agent) -> Result<(), Failure> {
    printer.document(agent, |agent| text(agent, now()))
}

fn text(agent: &Agent, now: Time) -> String {
    let mut lines: Vec<(&str, String)> =
        vec![("name", agent.name.to_string()), ("status", status(agent)), ("generation", agent.generation.to_string())];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    let at = |time: Option<Time>| time.map(|time| format!("{time} ({})", ago(time, now)));
    add("quarantined", agent.quarantined.clone());
    add("address", agent.address.clone());
    add("created", at(Some(agent.created_at)));
    add("connected", at(agent.connected_at));
    add("disconnected", at(agent.disconnected_at));
    add("version", agent.version.clone());
    add("isolation", agent.isolation.clone());
    add("cores", agent.cores.map(|cores| cores.to_string()));
    add("memory", agent.memory_bytes.map(bytes));
    add("groups", (!agent.groups.is_empty()).then(|| agent.groups.join(", ")));
    for (key, value) in &agent.labels {
        add("label", Some(format!("{key}={value}")));
    }
    card(&lines)
}
