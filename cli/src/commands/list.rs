//! `commands`: lists commands, the newest first.

use api::client::Client;
use api::commands::{Command, CommandQuery};
use api::page::MAX_LIMIT;
use api::time::Time;

use crate::args::CommandsArgs;
use crate::error::Failure;
use crate::output::{Align, Printer, Table, ago, between, columns, now};

pub(super) async fn run(client: &Client, printer: Printer, args: CommandsArgs) -> Result<(), Failure> {
    let wanted = args.limit as usize;
    let mut query = CommandQuery {
        agent: args.agent,
        phases: args.phase.into_iter().collect(),
        job: args.job,
        ..CommandQuery::default()
    };
    let mut commands: Vec<Command> = Vec::new();
    while commands.len() < wanted {
        let missing = u32::try_from(wanted - commands.len()).unwrap_or(MAX_LIMIT);
        query.limit = Some(missing.min(MAX_LIMIT));
        let page = client.commands(&query).await?;
        commands.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    commands.truncate(wanted);
    printer.document(&commands, |commands| table(commands, now()).lay_out(columns()))
}

fn table(commands: &[Command], now: Time) -> Table<6> {
    let mut table = Table::new([
        ("ID", Align::Right),
        ("AGENT", Align::Left),
        ("PHASE", Align::Left),
        ("CREATED", Align::Left),
        ("TOOK", Align::Right),
        ("COMMAND", Align::Left),
    ]);
    for command in commands {
        let took = match (command.started_at, command.finished_at) {
            (Some(start), Some(end)) => between(start, end),
            (Some(start), None) => between(start, now),
            (None, _) => "-".to_owned(),
        };
        table.row([
            command.id.to_string(),
            command.agent.to_string(),
            phase(command),
            ago(command.created_at, now),
            took,
            what(command),
        ]);
    }
    table
}

/// The phase with the one fact that people ask for next.
fn phase(command: &Command) -> String {
    let phase = command.phase;
    match (command.exit_code, command.signal, &command.cancel) {
        _ if command.waiting.is_some() => format!("{phase} ({})", command.waiting.as_deref().unwrap_or_default()),
        (Some(code), ..) if code != 0 => format!("{phase} ({code})"),
        (_, Some(signal), _) => format!("{phase} (signal {signal})"),
        (_, _, Some(cancel)) if cancel.pending => format!("{phase} (cancel pending)"),
        _ => phase.to_string(),
    }
}

/// What a command does, as one line.
pub(super) fn what(command: &Command) -> String {
    if let Some(words) = command.args.get("run").and_then(|run| run.as_array()) {
        let words: Vec<String> = words.iter().map(|word| quoted(word.as_str().unwrap_or_default())).collect();
        return words.join(" ");
    }
    if let Some(line) = command.args.get("shell").and_then(|line| line.as_str()) {
        return line.to_owned();
    }
    match command.args.as_object() {
        Some(object) if object.is_empty() => command.operation.clone(),
        _ => format!("{} {}", command.operation, command.args),
    }
}

/// Shows where a word begins and ends when it is not plain.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use common::model::Phase;
    use serde_json::json;

    use super::super::ending::sample::command;
    use super::*;

    #[test]
    fn a_list_of_commands_for_people() {
        let now = Time(1_767_225_600_000 + 90_000);
        let mut done = command(Phase::Succeeded);
        done.started_at = Some(Time(1_767_225_600_100));
        done.finished_at = Some(Time(1_767_225_600_142));
        done.exit_code = Some(0);
        let mut failed = command(Phase::Failed);
        failed.id = 7;
        failed.exit_code = Some(3);
        failed.args = json!({"shell": "echo \u{1b}[31m; exit 3"});
        let mut waiting = command(Phase::Queued);
        waiting.waiting = Some("restored".into());
        waiting.args = json!({"run": ["echo", "a b", "it's", ""]});
        let mut pinged = command(Phase::Running);
        pinged.operation = "agent.ping".into();
        pinged.args = json!({});
        pinged.started_at = Some(Time(1_767_225_600_000));
        insta::assert_snapshot!(table(&[done, failed, waiting, pinged], now).lay_out(None), @r"
        ID  AGENT  PHASE              CREATED  TOOK  COMMAND
        42  web1   succeeded          90s ago  42ms  uname -a
         7  web1   failed (3)         90s ago     -  echo \u{1b}[31m; exit 3
        42  web1   queued (restored)  90s ago     -  echo 'a b' 'it'\''s' ''
        42  web1   running            90s ago   90s  agent.ping
        ");
    }
}
