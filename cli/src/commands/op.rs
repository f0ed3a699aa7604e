//! `op`: starts any operation; prints what it writes, and what it answers.

use api::client::Client;
use api::commands::Command;
use common::model::Phase;

use super::follow::Followed;
use super::{ending, request, run, start};
use crate::args::{Format, OpArgs};
use crate::error::Failure;
use crate::output::{Printer, print};

pub(super) async fn run(client: &Client, printer: Printer, args: &OpArgs) -> Result<u8, Failure> {
    let request = request::of_op(args)?;
    if args.start.detach {
        let started = start::send(client, printer, &args.target, request).await?;
        start::print(printer, &started)?;
        return Ok(0);
    }
    let Followed::Ended(commands) = run::begin_and_follow(client, printer, &args.target, request).await? else {
        return Ok(1);
    };
    match (printer.format, commands.as_slice()) {
        (Format::Table, commands) => print(answers(commands).as_bytes())?,
        (_, [command]) => printer.document(command, |_| String::new())?,
        (_, commands) => printer.document(&commands, |_| String::new())?,
    }
    Ok(u8::from(commands.iter().any(|command| command.phase != Phase::Succeeded)))
}

/// The values that operations answered, as JSON: escaped by its own rules, except what JSON lets through.
fn answers(commands: &[Command]) -> String {
    let is_single = commands.len() == 1;
    // What a guard says is no answer of the operation; it was told when the command ended.
    let answered = commands.iter().filter(|command| ending::skipped(command).is_none());
    let values = answered.filter_map(|command| command.value.as_ref().map(|value| (command, value)));
    values
        .map(|(command, value)| {
            let value = common::escape::text(value.to_string());
            if is_single { format!("{value}\n") } else { format!("{}  {value}\n", command.agent) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ending::sample::command;
    use super::*;

    #[test]
    fn answers_are_one_line_each() {
        let mut pinged = command(Phase::Succeeded);
        pinged.value = Some(json!({"pong": true, "text": "a\u{1b}[0m\u{202e}"}));
        let mut skipped = command(Phase::Succeeded);
        skipped.flags = vec!["skipped".into()];
        skipped.value = Some(json!({"skipped": "creates", "text": "/x exists"}));
        assert_eq!(answers(&[skipped]), "");
        let silent = command(Phase::Succeeded);
        assert_eq!(answers(&[pinged.clone()]), "{\"pong\":true,\"text\":\"a\\u001b[0m\\u{202e}\"}\n");
        assert!(answers(&[pinged, silent]).starts_with("web1  {"));
    }
}
