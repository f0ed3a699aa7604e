//! `commands`: lists commands, the newest first.

use api::client::Client;
use api::commands::{Command, CommandQuery};
use api::page::MAX_LIMIT;
use api::time::Time;

use super::ending;
use super::held::{self, Hold};
use crate::args::CommandsArgs;
use crate::error::{Failure, Kind};
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
    if commands.is_empty() {
        must_exist(client, &query).await?;
    }
    printer.document(&commands, |commands| table(commands, now()).lay_out(columns()))
}

/// An empty list of an agent or a job that does not exist is a mistake, not an answer.
async fn must_exist(client: &Client, query: &CommandQuery) -> Result<(), Failure> {
    if let Some(agent) = &query.agent {
        client.agent(agent).await?;
    }
    if let Some(job) = query.job {
        let whole = CommandQuery { job: Some(job), limit: Some(1), ..CommandQuery::default() };
        if client.commands(&whole).await?.items.is_empty() {
            return Err(Failure::new(Kind::NotFound, format!("there is no job {job}")));
        }
    }
    Ok(())
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
        _ if let Some((place, all)) = held::place(command) => format!("{phase} ({place} of {all})"),
        _ if let Some(waiting) = &command.waiting => format!("{phase} ({waiting})"),
        _ if ending::skipped(command).is_some() => format!("{phase} (skipped)"),
        (Some(code), ..) if code != 0 => format!("{phase} ({code})"),
        (_, Some(signal), _) => format!("{phase} (signal {signal})"),
        _ if let Some((Hold::Stuck, _)) = held::reason(command) => format!("{phase} (stuck)"),
        (_, _, Some(cancel)) if cancel.pending => format!("{phase} (cancel pending)"),
        _ if let Some(pause) = command.pause.as_ref().filter(|pause| pause.pending && !phase.is_final()) => {
            format!("{phase} ({} pending)", if pause.paused { "pause" } else { "resume" })
        }
        _ => phase.to_string(),
    }
}

/// What a command does, as one line.
pub(super) fn what(command: &Command) -> String {
    if let Some(words) = command.args.get("run").and_then(|run| run.as_array()) {
        return line(words);
    }
    if let Some(line) = command.args.get("shell").and_then(|line| line.as_str()) {
        return line.to_owned();
    }
    if command.operation == "script.run"
        && let Some(content) = command.args.get("content").and_then(|content| content.as_str())
    {
        return script(content, command);
    }
    match command.args.as_object() {
        Some(object) if object.is_empty() => command.operation.clone(),
        _ => format!("{} {}", command.operation, command.args),
    }
}

/// Words as a line that shows where each of them begins and ends.
pub(super) fn line(words: &[serde_json::Value]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word.as_str().unwrap_or_default())).collect();
    words.join(" ")
}

/// A script as the line that it amounts to: what runs it, how long it is, and its arguments.
fn script(content: &str, command: &Command) -> String {
    let words = |key: &str| -> Option<Vec<String>> {
        match command.args.get(key)? {
            serde_json::Value::String(word) => Some(vec![word.clone()]),
            list => Some(list.as_array()?.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()),
        }
    };
    let named =
        content.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim).filter(|it| !it.is_empty());
    let interpreter =
        words("interpreter").map_or_else(|| named.unwrap_or("/bin/sh").to_owned(), |words| words.join(" "));
    let lines = content.lines().count();
    let mut line = format!("{interpreter} <script, {lines} line{}>", if lines == 1 { "" } else { "s" });
    for word in words("args").into_iter().flatten() {
        line.push(' ');
        line.push_str(&quoted(&word));
    }
    line
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
        let mut placed = command(Phase::Waiting);
        placed.waiting = Some("parallel_limit".into());
        placed.progress = Some(api::commands::Progress { current: 3, total: 17, text: String::new() });
        placed.operation = "script.run".into();
        placed.args = json!({"content": "#!/usr/bin/env bash\necho \"$1\"\n", "args": ["v 1"], "creates": "/x"});
        let mut skipped = command(Phase::Succeeded);
        skipped.flags = vec!["skipped".into()];
        skipped.operation = "script.run".into();
        skipped.args = json!({"content": "print(1)", "interpreter": ["python3", "-u"]});
        let all = [done, failed, waiting, pinged, placed, skipped];
        insta::assert_snapshot!(table(&all, now).lay_out(None), @r"
        ID  AGENT  PHASE                CREATED  TOOK  COMMAND
        42  web1   succeeded            90s ago  42ms  uname -a
         7  web1   failed (3)           90s ago     -  echo \u{1b}[31m; exit 3
        42  web1   queued (restored)    90s ago     -  echo 'a b' 'it'\''s' ''
        42  web1   running              90s ago   90s  agent.ping
        42  web1   waiting (3 of 17)    90s ago     -  /usr/bin/env bash <script, 2 lines> 'v 1'
        42  web1   succeeded (skipped)  90s ago     -  python3 -u <script, 1 line>
        ");
    }

    #[test]
    fn a_phase_comes_with_what_is_asked_next() {
        let mut stuck = command(Phase::Stopping);
        stuck.progress = serde_json::from_value(json!({"current": 0, "total": 0, "text": "stuck: pids 12"})).ok();
        assert_eq!(phase(&stuck), "stopping (stuck)");
        let mut wished = command(Phase::Running);
        let at = "2026-01-01T00:00:00.000Z";
        let wish = json!({"paused": true, "by": "ann", "at": at, "pending": true, "refused": null});
        wished.pause = serde_json::from_value(wish).ok();
        assert_eq!(phase(&wished), "running (pause pending)");
        wished.phase = Phase::Paused;
        wished.pause = wished.pause.map(|pause| api::commands::Pause { paused: false, ..pause });
        assert_eq!(phase(&wished), "paused (resume pending)");
        wished.phase = Phase::Succeeded;
        assert_eq!(phase(&wished), "succeeded");
        let mut paused = command(Phase::Paused);
        paused.pause = wished.pause.map(|pause| api::commands::Pause { pending: false, ..pause });
        assert_eq!(phase(&paused), "paused");
    }
}
