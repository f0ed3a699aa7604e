//! `run`: starts a program on agents, shows what it writes while it writes it, and ends as it ended.

use api::client::Client;
use api::commands::CommandRequest;

use super::ending;
use super::follow::{self, Followed, Interrupt, Show};
use super::{request, start};
use crate::args::values::Targets;
use crate::args::{Format, RunArgs};
use crate::error::{Failure, Kind};
use crate::output::{Printer, note};

pub(super) async fn run(client: &Client, printer: Printer, args: &RunArgs) -> Result<u8, Failure> {
    let request = request::of_run(args)?;
    if args.start.detach {
        let started = start::send(client, printer, &args.target, request).await?;
        start::print(printer, &started)?;
        return Ok(0);
    }
    match begin_and_follow(client, printer, &args.target, request).await? {
        Followed::Detached => Ok(ending::OUR_FAILURE),
        Followed::Ended(commands) => {
            match (printer.format, commands.as_slice()) {
                (Format::Table, _) => {}
                (_, [command]) => printer.document(command, |_| String::new())?,
                (_, commands) => printer.document(&commands, |_| String::new())?,
            }
            let codes: Vec<u8> = commands.iter().map(ending::exit_code).collect();
            Ok(match codes.as_slice() {
                [code] => *code,
                codes => ending::exit_code_of_all(codes),
            })
        }
    }
}

/// Starts a request and follows it; Ctrl-C is heard from before the start.
pub(super) async fn begin_and_follow(
    client: &Client,
    printer: Printer,
    target: &Targets,
    request: CommandRequest,
) -> Result<Followed, Failure> {
    let mut interrupt = Interrupt::listen()?;
    let started = tokio::select! {
        started = start::send(client, printer, target, request) => started?,
        () = interrupt.pressed() => {
            return Err(Failure::new(Kind::Work, "interrupted before the manager answered")
                .hint("it may have been started all the same: see paprika commands"));
        }
    };
    let show = match printer.format {
        Format::Table => Show::Output,
        Format::Json | Format::Yaml => Show::Nothing,
    };
    let followed = follow::follow(client, &started.commands, show, &mut interrupt).await;
    match &followed {
        Ok(Followed::Detached) => note("left; what was started goes on"),
        Err(failure) if failure.is_closed_pipe() => {
            let ids: Vec<String> = started.commands.iter().map(|command| command.id.to_string()).collect();
            note(&format!("nobody reads the output any more; what was started goes on: {}", ids.join(", ")));
        }
        _ => {}
    }
    followed
}
