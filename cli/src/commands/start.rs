//! Starts a request on one or several agents and remembers what came of it.

use api::client::Client;
use api::commands::{Command, CommandRef, CommandRequest, JobRequest};
use serde::Serialize;

use super::target;
use crate::args::values::Targets;
use crate::error::Failure;
use crate::output::{Align, Printer, Table};

/// What was started.
#[derive(Debug, Serialize)]
pub(super) struct Started {
    /// The job, when there are several.
    pub(super) job: Option<u64>,
    /// One command for each agent, in the order of the targets.
    pub(super) commands: Vec<CommandRef>,
    /// The command itself where it is the only one.
    #[serde(skip)]
    pub(super) only: Option<Box<Command>>,
}

/// Sends the request to the agents that are meant now; for a single agent no job is made.
pub(super) async fn send(
    client: &Client,
    printer: Printer,
    targets: &Targets,
    request: CommandRequest,
) -> Result<Started, Failure> {
    let agents = target::resolve(client, printer, targets).await?;
    if let [name] = agents.as_slice() {
        let command = client.start(name, &request).await?;
        return Ok(Started {
            job: command.job,
            commands: vec![CommandRef { id: command.id, agent: command.agent.clone() }],
            only: Some(Box::new(command)),
        });
    }
    let answer = client.start_job(&JobRequest::new(agents, request)).await?;
    Ok(Started { job: answer.job, commands: answer.commands, only: None })
}

/// Prints what was started and nothing else: the ids, for those who do not wait.
pub(super) fn print(printer: Printer, started: &Started) -> Result<(), Failure> {
    match (&started.only, started.commands.as_slice()) {
        (Some(command), _) => printer.document(command, |command| format!("{}\n", command.id)),
        (None, commands) => printer.document(started, |_| {
            let mut table = Table::new([("ID", Align::Right), ("AGENT", Align::Left)]);
            for command in commands {
                table.row([command.id.to_string(), command.agent.to_string()]);
            }
            table.lay_out(None)
        }),
    }
}
