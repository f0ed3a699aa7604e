//! `cancel`: stops commands.

use api::client::Client;
use api::commands::{CancelAnswer, CancelOutcome, CancelRequest};

use super::each::each;
use super::ending;
use crate::args::CancelArgs;
use crate::error::Failure;
use crate::output::Printer;

pub(super) async fn run(client: &Client, printer: Printer, args: &CancelArgs) -> Result<u8, Failure> {
    let request = CancelRequest { reason: args.reason.clone(), grace: args.grace };
    each(printer, &args.ids, async |id| client.cancel(id, &request).await, sentence).await
}

fn sentence(answer: &CancelAnswer) -> String {
    let command = &answer.command;
    let what = match answer.answer {
        CancelOutcome::Cancelled => "cancelled; it never ran".to_owned(),
        CancelOutcome::CancelPending if command.agent_reachable => "is being stopped".to_owned(),
        CancelOutcome::CancelPending => "is stopped when its agent is back".to_owned(),
        CancelOutcome::AlreadyFinal => format!("was over before: {}", ending::sentence(command)),
    };
    format!("{}  {}  {}\n", command.id, command.agent, common::escape::text(what))
}
